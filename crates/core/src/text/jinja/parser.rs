//! Tokens to a tree, as jinja2's parser reads them. Expressions are in [`expression`].

mod expression;

use super::ast::{Expr, For, Macro, Program, Stmt, Target, Uses};
use super::lexer::{Placed, Token, tokens};

/// Deepest nesting of tags and expressions. A chain such as `a + b + c` nests too.
const DEEPEST: usize = 400;

pub(super) fn parse(source: &str) -> Result<Program, String> {
    let mut parser = Parser { tokens: tokens(source)?, at: 0, depth: 0, program: Program::default(), open: Vec::new() };
    let body = parser.statements(&[])?;
    if *parser.peek() != Token::End {
        return parser.fail("unexpected end of a block");
    }
    parser.program.body = body;
    Ok(parser.program)
}

struct Parser {
    tokens: Vec<Placed>,
    at: usize,
    depth: usize,
    program: Program,
    /// Special variables that the enclosing macros read.
    open: Vec<Uses>,
}

impl Parser {
    fn peek(&self) -> &Token {
        &self.tokens[self.at].0
    }

    fn look(&self, ahead: usize) -> &Token {
        &self.tokens[(self.at + ahead).min(self.tokens.len() - 1)].0
    }

    fn next(&mut self) -> Token {
        let token = self.tokens[self.at].0.clone();
        self.at = (self.at + 1).min(self.tokens.len() - 1);
        token
    }

    fn fail<T>(&self, reason: impl std::fmt::Display) -> Result<T, String> {
        Err(format!("{reason} (line {})", self.tokens[self.at].1))
    }

    fn unexpected<T>(&self, wanted: &str) -> Result<T, String> {
        let found = match self.peek() {
            Token::Data(_) => "text".to_owned(),
            Token::BlockBegin => "`{%`".to_owned(),
            Token::BlockEnd => "the end of the tag".to_owned(),
            Token::VariableBegin => "`{{`".to_owned(),
            Token::VariableEnd => "the end of the expression".to_owned(),
            Token::Name(name) => format!("`{}`", name.chars().take(40).collect::<String>()),
            Token::Text(_) => "a string".to_owned(),
            Token::Int(_) | Token::Float(_) => "a number".to_owned(),
            Token::Operator(operator) => format!("`{operator}`"),
            Token::End => "the end of the template".to_owned(),
        };
        self.fail(format!("expected {wanted}, found {found}"))
    }

    fn is_name(&self, name: &str) -> bool {
        matches!(self.peek(), Token::Name(found) if found == name)
    }

    fn is(&self, operator: &str) -> bool {
        matches!(self.peek(), Token::Operator(found) if *found == operator)
    }

    fn skip_name(&mut self, name: &str) -> bool {
        let found = self.is_name(name);
        if found {
            self.next();
        }
        found
    }

    fn skip(&mut self, operator: &str) -> bool {
        let found = self.is(operator);
        if found {
            self.next();
        }
        found
    }

    fn expect(&mut self, operator: &str) -> Result<(), String> {
        match self.skip(operator) {
            true => Ok(()),
            false => self.unexpected(&format!("`{operator}`")),
        }
    }

    fn expect_name(&mut self, name: &str) -> Result<(), String> {
        match self.skip_name(name) {
            true => Ok(()),
            false => self.unexpected(&format!("`{name}`")),
        }
    }

    fn name(&mut self) -> Result<String, String> {
        match self.next() {
            Token::Name(name) => Ok(name),
            _ => {
                self.at -= 1;
                self.unexpected("a name")
            }
        }
    }

    fn block_end(&mut self) -> Result<(), String> {
        match self.peek() {
            Token::BlockEnd => {
                self.next();
                Ok(())
            }
            _ => self.unexpected("the end of the tag"),
        }
    }

    fn place(&mut self) -> u32 {
        self.program.places += 1;
        self.program.places
    }

    /// Runs `parse` one level deeper.
    fn deeper<T>(&mut self, parse: impl FnOnce(&mut Self) -> Result<T, String>) -> Result<T, String> {
        if self.depth >= DEEPEST {
            return self.fail(format!("tags and expressions may be nested {DEEPEST} deep"));
        }
        self.depth += 1;
        let parsed = parse(self);
        self.depth -= 1;
        parsed
    }

    /// Statements up to a tag with one of the names, which stays the next token.
    fn statements(&mut self, ends: &[&str]) -> Result<Vec<Stmt>, String> {
        self.deeper(|parser| parser.statements_here(ends))
    }

    fn statements_here(&mut self, ends: &[&str]) -> Result<Vec<Stmt>, String> {
        let mut body = Vec::new();
        loop {
            match self.peek() {
                Token::Data(_) => {
                    if let Token::Data(text) = self.next() {
                        let place = self.place();
                        body.push(Stmt::Data(text, place));
                    }
                }
                Token::VariableBegin => {
                    self.next();
                    body.push(Stmt::Output(self.tuple()?));
                    match self.next() {
                        Token::VariableEnd => {}
                        _ => {
                            self.at -= 1;
                            return self.unexpected("the end of the expression");
                        }
                    }
                }
                Token::BlockBegin => {
                    self.next();
                    if ends.iter().any(|end| self.is_name(end)) {
                        return Ok(body);
                    }
                    let name = self.name()?;
                    body.push(self.statement(&name, ends)?);
                }
                Token::End if ends.is_empty() => return Ok(body),
                Token::End => return self.fail(format!("the template ends before `{}`", ends.join("` or `"))),
                _ => return self.unexpected("text or a tag"),
            }
        }
    }

    /// Statements up to a tag with just this name, which is passed.
    fn body(&mut self, end: &str) -> Result<Vec<Stmt>, String> {
        self.block_end()?;
        let body = self.statements(&[end])?;
        self.next();
        self.block_end()?;
        Ok(body)
    }

    fn statement(&mut self, name: &str, ends: &[&str]) -> Result<Stmt, String> {
        match name {
            "for" => self.for_loop(),
            "if" => self.if_block(),
            "set" => self.set(),
            "with" => {
                let mut bound = Vec::new();
                while *self.peek() != Token::BlockEnd {
                    if !bound.is_empty() {
                        self.expect(",")?;
                    }
                    let target = self.target()?;
                    self.expect("=")?;
                    bound.push((target, self.expression()?));
                }
                Ok(Stmt::With(bound, self.body("endwith")?))
            }
            "macro" => {
                let name = self.name()?;
                let of = self.macro_of(name, "endmacro")?;
                Ok(Stmt::Macro(of))
            }
            "call" => {
                let arguments = if self.is("(") { self.signature()? } else { Vec::new() };
                let call = self.expression()?;
                if !matches!(call, Expr::Call(..)) {
                    return self.fail("`call` needs a call");
                }
                let of = self.macro_body("caller".to_owned(), arguments, "endcall")?;
                Ok(Stmt::Call(call, of))
            }
            "filter" => {
                let filters = self.filters(true)?;
                Ok(Stmt::FilterBlock(filters, self.body("endfilter")?))
            }
            "generation" => Ok(Stmt::Scope(self.body("endgeneration")?)),
            "block" => {
                self.name()?;
                while let Token::Name(_) = self.peek() {
                    self.next();
                }
                self.block_end()?;
                let body = self.statements(&["endblock"])?;
                self.next();
                if let Token::Name(_) = self.peek() {
                    self.next();
                }
                self.block_end()?;
                Ok(Stmt::Scope(body))
            }
            "autoescape" => match self.expression()? {
                Expr::Bool(false) => Ok(Stmt::Scope(self.body("endautoescape")?)),
                _ => self.fail("`autoescape` is not supported"),
            },
            "print" => {
                let mut outputs = Vec::new();
                while *self.peek() != Token::BlockEnd {
                    if !outputs.is_empty() {
                        self.expect(",")?;
                    }
                    outputs.push(Stmt::Output(self.expression()?));
                }
                self.block_end()?;
                Ok(Stmt::Scope(outputs))
            }
            "break" => self.block_end().map(|()| Stmt::Break),
            "continue" => self.block_end().map(|()| Stmt::Continue),
            "include" | "import" | "from" | "extends" => {
                while !matches!(self.peek(), Token::BlockEnd | Token::End) {
                    self.next();
                }
                self.block_end()?;
                Ok(Stmt::Refused("a chat template cannot load other templates"))
            }
            other => {
                let other: String = other.chars().take(40).collect();
                let wanted =
                    if ends.is_empty() { String::new() } else { format!("; open is `{}`", ends.join("` or `")) };
                self.fail(format!("unknown tag `{other}`{wanted}"))
            }
        }
    }

    fn for_loop(&mut self) -> Result<Stmt, String> {
        let target = self.target()?;
        self.expect_name("in")?;
        let iter = self.tuple_without_condition(&["recursive"])?;
        let test = if self.skip_name("if") { Some(self.expression()?) } else { None };
        let recursive = self.skip_name("recursive");
        self.block_end()?;
        let body = self.statements(&["endfor", "else"])?;
        let mut otherwise = Vec::new();
        if self.skip_name("else") {
            self.block_end()?;
            otherwise = self.statements(&["endfor"])?;
        }
        self.next();
        self.block_end()?;
        self.program.loops.push(For { target, iter, test, recursive, body, otherwise });
        Ok(Stmt::For(self.program.loops.len() - 1))
    }

    fn if_block(&mut self) -> Result<Stmt, String> {
        let mut branches = Vec::new();
        loop {
            let test = self.tuple_without_condition(&[])?;
            self.block_end()?;
            branches.push((test, self.statements(&["elif", "else", "endif"])?));
            if self.skip_name("elif") {
                continue;
            }
            let mut otherwise = Vec::new();
            if self.skip_name("else") {
                self.block_end()?;
                otherwise = self.statements(&["endif"])?;
            }
            self.next();
            self.block_end()?;
            return Ok(Stmt::If(branches, otherwise));
        }
    }

    fn set(&mut self) -> Result<Stmt, String> {
        let target = self.target()?;
        if self.skip("=") {
            let value = self.tuple()?;
            self.block_end()?;
            return Ok(Stmt::Set(target, value));
        }
        let filters = self.filters(false)?;
        Ok(Stmt::SetBlock(target, filters, self.body("endset")?))
    }

    /// Parses a target to which a value can be bound.
    fn target(&mut self) -> Result<Target, String> {
        let mut targets = Vec::new();
        let mut tuple = false;
        loop {
            targets.push(match self.peek() {
                Token::Operator("(") => {
                    self.next();
                    let inner = self.deeper(Self::target)?;
                    self.expect(")")?;
                    inner
                }
                _ => {
                    let name = self.name()?;
                    if matches!(name.as_str(), "true" | "false" | "none" | "True" | "False" | "None") {
                        return self.fail(format!("cannot assign to `{name}`"));
                    }
                    match self.skip(".") {
                        true => Target::Attribute(name, self.name()?),
                        false => Target::Name(name),
                    }
                }
            });
            if !self.skip(",") {
                break;
            }
            tuple = true;
            if self.is_name("in") || self.is("=") || self.is(")") {
                break;
            }
        }
        match targets.pop() {
            Some(single) if !tuple => Ok(single),
            last => Ok(Target::Tuple(targets.into_iter().chain(last).collect())),
        }
    }

    fn signature(&mut self) -> Result<Vec<(String, Option<Expr>)>, String> {
        let mut arguments: Vec<(String, Option<Expr>)> = Vec::new();
        self.expect("(")?;
        while !self.is(")") {
            if !arguments.is_empty() {
                self.expect(",")?;
            }
            let name = self.name()?;
            let default = if self.skip("=") { Some(self.expression()?) } else { None };
            if default.is_none() && arguments.last().is_some_and(|(_, default)| default.is_some()) {
                return self.fail("an argument without default follows one with default");
            }
            arguments.push((name, default));
        }
        self.expect(")")?;
        Ok(arguments)
    }

    fn macro_of(&mut self, name: String, end: &str) -> Result<usize, String> {
        let arguments = self.signature()?;
        self.macro_body(name, arguments, end)
    }

    fn macro_body(&mut self, name: String, arguments: Vec<(String, Option<Expr>)>, end: &str) -> Result<usize, String> {
        self.open.push(Uses::default());
        let body = self.body(end)?;
        let uses = self.open.pop().unwrap_or_default();
        self.program.macros.push(Macro { name, arguments, body, uses });
        Ok(self.program.macros.len() - 1)
    }
}
