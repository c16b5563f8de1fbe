//! Jinja2 as transformers configures it, for templates of strangers: everything that a template does is counted against a budget,
//! and every string knows which of its parts come from a message.
//!
//! Compiling gives a [`Template`]; rendering takes variables and gives [`Text`]. `docs/design/templates.md` says where it differs
//! from jinja2.

mod arguments;
mod ast;
mod budget;
mod compare;
mod fail;
mod filters;
mod format;
mod interpreter;
mod json;
mod lexer;
mod looping;
mod methods;
mod operators;
mod parser;
mod predicates;
mod repr;
mod strftime;
mod text;
mod unescape;
mod value;

pub(super) use budget::Share;
pub(super) use fail::Fail;
pub(super) use text::{Builder, Mark, Origin, Text};
pub(super) use value::Value;

/// A compiled template.
pub(super) struct Template {
    program: ast::Program,
}

impl Template {
    /// Reads a template; an error says what is wrong, and where.
    pub(super) fn compile(source: &str) -> Result<Template, String> {
        parser::parse(source).map(|program| Template { program })
    }

    /// Renders with the budget of one rendering, on the calling thread, which should be there for nothing else. `variables` makes
    /// the values on that thread. Wherever the template itself has `word`, the text is marked as [`Origin::Literal`].
    pub(super) fn render(
        &self,
        variables: impl FnOnce() -> Result<Vec<(String, Value)>, Fail>,
        word: &str,
        limit: usize,
        share: Share,
    ) -> Result<(String, Vec<Mark>), Fail> {
        budget::start(share);
        let text = interpreter::Interpreter::new(&self.program, word).run(variables()?, limit)?;
        Ok((text.as_str().to_owned(), text.marks().to_vec()))
    }
}

#[cfg(test)]
mod tests;
