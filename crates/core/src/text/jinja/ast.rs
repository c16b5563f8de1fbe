//! A parsed template. Loops and macros are kept beside the tree, so that values can name them by number.

/// A whole template.
#[derive(Debug, Default)]
pub(super) struct Program {
    pub(super) body: Vec<Stmt>,
    pub(super) loops: Vec<For>,
    pub(super) macros: Vec<Macro>,
    /// Places in the source where text can come from: the next one's number.
    pub(super) places: u32,
}

#[derive(Debug)]
pub(super) enum Stmt {
    Data(String, u32),
    Output(Expr),
    For(usize),
    If(Vec<(Expr, Vec<Stmt>)>, Vec<Stmt>),
    Set(Target, Expr),
    /// `{% set x | filters %}...{% endset %}`
    SetBlock(Target, Vec<Filter>, Vec<Stmt>),
    With(Vec<(Target, Expr)>, Vec<Stmt>),
    Macro(usize),
    /// `{% call(...) f() %}...{% endcall %}`, whose body is a macro.
    Call(Expr, usize),
    FilterBlock(Vec<Filter>, Vec<Stmt>),
    /// A scope without a meaning of its own: `generation`, `block`, `autoescape false`.
    Scope(Vec<Stmt>),
    Break,
    Continue,
    /// A statement that is understood but never works, with the reason.
    Refused(&'static str),
}

#[derive(Debug)]
pub(super) struct For {
    pub(super) target: Target,
    pub(super) iter: Expr,
    pub(super) test: Option<Expr>,
    pub(super) recursive: bool,
    pub(super) body: Vec<Stmt>,
    pub(super) otherwise: Vec<Stmt>,
}

#[derive(Debug, Default)]
pub(super) struct Macro {
    pub(super) name: String,
    pub(super) arguments: Vec<(String, Option<Expr>)>,
    pub(super) body: Vec<Stmt>,
    pub(super) uses: Uses,
}

/// The special names that the body of a macro reads.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Uses {
    pub(super) caller: bool,
    pub(super) varargs: bool,
    pub(super) kwargs: bool,
}

#[derive(Clone, Debug)]
pub(super) enum Target {
    Name(String),
    Attribute(String, String),
    Tuple(Vec<Target>),
}

#[derive(Debug)]
pub(super) enum Expr {
    None,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(String, u32),
    Name(String, u32),
    List(Vec<Expr>),
    Tuple(Vec<Expr>),
    Dict(Vec<(Expr, Expr)>),
    Attribute(Box<Expr>, String),
    Item(Box<Expr>, Box<Expr>),
    Slice(Box<Expr>, Box<[Option<Expr>; 3]>),
    Call(Box<Expr>, Box<Arguments>),
    Filter(Box<Expr>, Box<Filter>),
    Test(Box<Expr>, Box<Filter>),
    Not(Box<Expr>),
    Negative(Box<Expr>),
    Positive(Box<Expr>),
    And(Box<Expr>, Box<Expr>),
    Or(Box<Expr>, Box<Expr>),
    Compare(Box<Expr>, Vec<(Comparison, Expr)>),
    Binary(Operator, Box<Expr>, Box<Expr>),
    Concat(Vec<Expr>),
    /// Condition, value, other value.
    If(Box<Expr>, Box<Expr>, Option<Box<Expr>>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Comparison {
    Equal,
    Unequal,
    Less,
    LessEqual,
    Greater,
    GreaterEqual,
    In,
    NotIn,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operator {
    Add,
    Subtract,
    Multiply,
    Divide,
    FloorDivide,
    Modulo,
    Power,
}

/// A filter or test with its arguments.
#[derive(Debug)]
pub(super) struct Filter {
    pub(super) name: String,
    pub(super) arguments: Arguments,
}

#[derive(Debug, Default)]
pub(super) struct Arguments {
    pub(super) positional: Vec<Expr>,
    pub(super) named: Vec<(String, Expr)>,
    pub(super) star: Option<Expr>,
    pub(super) star_star: Option<Expr>,
}
