//! Expressions, with the precedence of jinja2, which is not quite Python's: `**` binds to the left, `~` between `+` and `*`.

use super::super::ast::{Arguments, Comparison, Expr, Filter, Operator};
use super::super::lexer::Token;
use super::Parser;

type Parsed = Result<Expr, String>;

impl Parser {
    pub(super) fn expression(&mut self) -> Parsed {
        self.deeper(Self::condition)
    }

    /// An expression, or a tuple without parentheses.
    pub(super) fn tuple(&mut self) -> Parsed {
        self.tuple_of(Self::expression, &[], false)
    }

    /// Like [`Parser::tuple`], where an `if` belongs to the tag.
    pub(super) fn tuple_without_condition(&mut self, ends: &[&str]) -> Parsed {
        self.tuple_of(|parser| parser.deeper(Self::or), ends, false)
    }

    fn tuple_of(&mut self, mut part: impl FnMut(&mut Self) -> Parsed, ends: &[&str], parentheses: bool) -> Parsed {
        let mut parts = Vec::new();
        let mut tuple = false;
        loop {
            if tuple {
                self.expect(",")?;
            }
            let at_end = matches!(self.peek(), Token::VariableEnd | Token::BlockEnd | Token::Operator(")"))
                || ends.iter().any(|end| self.is_name(end));
            if at_end {
                break;
            }
            parts.push(part(self)?);
            if !self.is(",") {
                break;
            }
            tuple = true;
        }
        if !tuple {
            if let Some(single) = parts.pop() {
                return Ok(single);
            }
            if !parentheses {
                return self.unexpected("an expression");
            }
        }
        Ok(Expr::Tuple(parts))
    }

    fn condition(&mut self) -> Parsed {
        let mut value = self.or()?;
        let depth = self.depth;
        while self.skip_name("if") {
            self.chain()?;
            let test = self.or()?;
            let other = if self.skip_name("else") { Some(Box::new(self.deeper(Self::condition)?)) } else { None };
            value = Expr::If(Box::new(test), Box::new(value), other);
        }
        self.depth = depth;
        Ok(value)
    }

    /// Counts one more level of a chain, which makes a tree as deep; whoever calls it sets the depth back.
    fn chain(&mut self) -> Result<(), String> {
        self.depth += 1;
        self.deeper(|_| Ok(()))
    }

    fn or(&mut self) -> Parsed {
        let depth = self.depth;
        let mut left = self.and()?;
        while self.skip_name("or") {
            self.chain()?;
            left = Expr::Or(Box::new(left), Box::new(self.and()?));
        }
        self.depth = depth;
        Ok(left)
    }

    fn and(&mut self) -> Parsed {
        let depth = self.depth;
        let mut left = self.not()?;
        while self.skip_name("and") {
            self.chain()?;
            left = Expr::And(Box::new(left), Box::new(self.not()?));
        }
        self.depth = depth;
        Ok(left)
    }

    fn not(&mut self) -> Parsed {
        match self.skip_name("not") {
            true => Ok(Expr::Not(Box::new(self.deeper(Self::not)?))),
            false => self.comparison(),
        }
    }

    fn comparison(&mut self) -> Parsed {
        let left = self.sum()?;
        let mut rest = Vec::new();
        loop {
            let comparison = match self.peek() {
                Token::Operator("==") => Comparison::Equal,
                Token::Operator("!=") => Comparison::Unequal,
                Token::Operator("<") => Comparison::Less,
                Token::Operator("<=") => Comparison::LessEqual,
                Token::Operator(">") => Comparison::Greater,
                Token::Operator(">=") => Comparison::GreaterEqual,
                Token::Name(name) if name == "in" => Comparison::In,
                Token::Name(name) if name == "not" && matches!(self.look(1), Token::Name(next) if next == "in") => {
                    self.next();
                    Comparison::NotIn
                }
                _ => break,
            };
            self.next();
            rest.push((comparison, self.sum()?));
        }
        Ok(if rest.is_empty() { left } else { Expr::Compare(Box::new(left), rest) })
    }

    fn sum(&mut self) -> Parsed {
        self.binary(Self::concatenation, |operator| match operator {
            "+" => Some(Operator::Add),
            "-" => Some(Operator::Subtract),
            _ => None,
        })
    }

    fn concatenation(&mut self) -> Parsed {
        let first = self.product()?;
        if !self.is("~") {
            return Ok(first);
        }
        let mut parts = vec![first];
        while self.skip("~") {
            parts.push(self.product()?);
        }
        Ok(Expr::Concat(parts))
    }

    fn product(&mut self) -> Parsed {
        self.binary(Self::power, |operator| match operator {
            "*" => Some(Operator::Multiply),
            "/" => Some(Operator::Divide),
            "//" => Some(Operator::FloorDivide),
            "%" => Some(Operator::Modulo),
            _ => None,
        })
    }

    fn power(&mut self) -> Parsed {
        self.binary(|parser| parser.unary(true), |operator| (operator == "**").then_some(Operator::Power))
    }

    /// A chain of operators that bind to the left.
    fn binary(
        &mut self,
        mut part: impl FnMut(&mut Self) -> Parsed,
        operator: impl Fn(&str) -> Option<Operator>,
    ) -> Parsed {
        let depth = self.depth;
        let mut left = part(self)?;
        while let Token::Operator(found) = self.peek() {
            let Some(operator) = operator(found) else { break };
            self.next();
            self.chain()?;
            left = Expr::Binary(operator, Box::new(left), Box::new(part(self)?));
        }
        self.depth = depth;
        Ok(left)
    }

    fn unary(&mut self, filters: bool) -> Parsed {
        let depth = self.depth;
        let mut node = if self.skip("-") {
            Expr::Negative(Box::new(self.deeper(|parser| parser.unary(false))?))
        } else if self.skip("+") {
            Expr::Positive(Box::new(self.deeper(|parser| parser.unary(false))?))
        } else {
            self.primary()?
        };
        node = self.postfix(node)?;
        if filters {
            node = self.filtered(node)?;
        }
        self.depth = depth;
        Ok(node)
    }

    fn primary(&mut self) -> Parsed {
        match self.next() {
            Token::Name(name) => Ok(match name.as_str() {
                "true" | "True" => Expr::Bool(true),
                "false" | "False" => Expr::Bool(false),
                "none" | "None" => Expr::None,
                _ => self.named(name),
            }),
            Token::Text(mut text) => {
                while let Token::Text(more) = self.peek() {
                    text.push_str(more);
                    self.next();
                }
                let place = self.place();
                Ok(Expr::Text(text, place))
            }
            Token::Int(value) => Ok(Expr::Int(value)),
            Token::Float(value) => Ok(Expr::Float(value)),
            Token::Operator("(") => {
                let inner = self.deeper(|parser| parser.tuple_of(Self::expression, &[], true))?;
                self.expect(")")?;
                Ok(inner)
            }
            Token::Operator("[") => {
                let mut items = Vec::new();
                while !self.is("]") {
                    if !items.is_empty() {
                        self.expect(",")?;
                        if self.is("]") {
                            break;
                        }
                    }
                    items.push(self.expression()?);
                }
                self.expect("]")?;
                Ok(Expr::List(items))
            }
            Token::Operator("{") => {
                let mut items = Vec::new();
                while !self.is("}") {
                    if !items.is_empty() {
                        self.expect(",")?;
                        if self.is("}") {
                            break;
                        }
                    }
                    let key = self.expression()?;
                    self.expect(":")?;
                    items.push((key, self.expression()?));
                }
                self.expect("}")?;
                Ok(Expr::Dict(items))
            }
            _ => {
                self.at -= 1;
                self.unexpected("an expression")
            }
        }
    }

    fn named(&mut self, name: String) -> Expr {
        for uses in &mut self.open {
            match name.as_str() {
                "caller" => uses.caller = true,
                "varargs" => uses.varargs = true,
                "kwargs" => uses.kwargs = true,
                _ => {}
            }
        }
        let place = self.place();
        Expr::Name(name, place)
    }

    fn postfix(&mut self, mut node: Expr) -> Parsed {
        loop {
            node = match self.peek() {
                Token::Operator(".") => {
                    self.next();
                    match self.next() {
                        Token::Name(name) => Expr::Attribute(Box::new(node), name),
                        Token::Int(index) => Expr::Item(Box::new(node), Box::new(Expr::Int(index))),
                        _ => {
                            self.at -= 1;
                            return self.unexpected("a name or a number");
                        }
                    }
                }
                Token::Operator("[") => self.subscript(node)?,
                Token::Operator("(") => {
                    let arguments = self.arguments()?;
                    Expr::Call(Box::new(node), Box::new(arguments))
                }
                _ => return Ok(node),
            };
            self.chain()?;
        }
    }

    fn subscript(&mut self, node: Expr) -> Parsed {
        self.expect("[")?;
        let mut parts: Vec<Expr> = Vec::new();
        let mut slice = None;
        while !self.is("]") {
            if !parts.is_empty() {
                self.expect(",")?;
            }
            let start = if self.is(":") { None } else { Some(self.expression()?) };
            if !self.is(":") {
                parts.extend(start);
                continue;
            }
            let mut bounds = [start, None, None];
            for bound in &mut bounds[1..] {
                if !self.skip(":") {
                    break;
                }
                if !self.is(":") && !self.is("]") && !self.is(",") {
                    *bound = Some(self.expression()?);
                }
            }
            if !self.is("]") || !parts.is_empty() {
                return self.unexpected("`]`");
            }
            slice = Some(bounds);
        }
        self.expect("]")?;
        if let Some(bounds) = slice {
            return Ok(Expr::Slice(Box::new(node), Box::new(bounds)));
        }
        let index = match parts.len() {
            0 => return self.fail("an empty subscript"),
            1 => parts.remove(0),
            _ => Expr::Tuple(parts),
        };
        Ok(Expr::Item(Box::new(node), Box::new(index)))
    }

    fn arguments(&mut self) -> Result<Arguments, String> {
        self.expect("(")?;
        let mut arguments = Arguments::default();
        let mut first = true;
        while !self.is(")") {
            if !first {
                self.expect(",")?;
                if self.is(")") {
                    break;
                }
            }
            first = false;
            if self.skip("*") {
                arguments.star = Some(self.expression()?);
            } else if self.skip("**") {
                arguments.star_star = Some(self.expression()?);
            } else if let (Token::Name(name), Token::Operator("=")) = (self.peek().clone(), self.look(1)) {
                self.next();
                self.next();
                arguments.named.push((name, self.expression()?));
            } else {
                if arguments.star_star.is_some() || !arguments.named.is_empty() {
                    return self.fail("a positional argument follows a named one");
                }
                arguments.positional.push(self.expression()?);
            }
        }
        self.expect(")")?;
        Ok(arguments)
    }

    fn filtered(&mut self, mut node: Expr) -> Parsed {
        loop {
            if self.skip("|") {
                let filter = self.filter()?;
                node = Expr::Filter(Box::new(node), Box::new(filter));
            } else if self.skip_name("is") {
                node = self.test(node)?;
            } else if self.is("(") {
                let arguments = self.arguments()?;
                node = Expr::Call(Box::new(node), Box::new(arguments));
            } else {
                return Ok(node);
            }
            self.chain()?;
        }
    }

    fn dotted(&mut self) -> Result<String, String> {
        let mut name = self.name()?;
        while self.skip(".") {
            name = format!("{name}.{}", self.name()?);
        }
        Ok(name)
    }

    fn filter(&mut self) -> Result<Filter, String> {
        let name = self.dotted()?;
        let arguments = if self.is("(") { self.arguments()? } else { Arguments::default() };
        Ok(Filter { name, arguments })
    }

    /// The filters of a block: `upper | trim`, or with a bar before the first.
    pub(super) fn filters(&mut self, inline: bool) -> Result<Vec<Filter>, String> {
        let mut filters = Vec::new();
        if inline {
            filters.push(self.filter()?);
        }
        while self.skip("|") {
            filters.push(self.filter()?);
        }
        Ok(filters)
    }

    fn test(&mut self, node: Expr) -> Parsed {
        let negated = self.skip_name("not");
        let name = self.dotted()?;
        let mut arguments = Arguments::default();
        let takes = match self.peek() {
            Token::Operator("(") => {
                arguments = self.arguments()?;
                false
            }
            Token::Name(name) => !matches!(name.as_str(), "else" | "or" | "and"),
            Token::Text(_) | Token::Int(_) | Token::Float(_) | Token::Operator("[" | "{") => true,
            _ => false,
        };
        if takes {
            if self.is_name("is") {
                return self.fail("tests with `is` cannot be chained");
            }
            let argument = self.primary()?;
            arguments.positional.push(self.postfix(argument)?);
        }
        let test = Expr::Test(Box::new(node), Box::new(Filter { name, arguments }));
        Ok(if negated { Expr::Not(Box::new(test)) } else { test })
    }
}
