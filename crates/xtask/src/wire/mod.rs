//! What crosses a door, from the sources of the engine: `ts/generated/wire.ts` and `docs/schema/wire.schema.json`.
//!
//! The sources are read instead of the types, so that the engine carries no descriptions of itself: serde's attributes decide what is
//! written, and the same attributes decide what is described. docs/design/wire.md says more.

mod docs;
mod schema;
mod shape;
mod source;
mod typescript;

use std::collections::HashSet;
use std::path::Path;

use shape::Types;
use source::Sources;

/// Types that go into the engine; lists in them are only read.
const INPUTS: [&str; 0] = [];
/// Types that come out of it.
const OUTPUTS: [&str; 2] = ["About", "Event"];

/// The generated files with their contents.
pub(crate) fn files(root: &Path) -> Result<Vec<(String, String)>, String> {
    let sources = Sources::read(&root.join("crates/core/src"))?;
    let mut types = Types::new(&sources);
    let mut inputs = HashSet::new();
    for rust in INPUTS {
        let name = types.add(rust)?;
        types.parts(&name, &mut inputs);
    }
    for rust in OUTPUTS {
        types.add(rust)?;
    }
    Ok(vec![
        ("ts/generated/wire.ts".into(), typescript::types(&types, &inputs)?),
        ("docs/schema/wire.schema.json".into(), schema::document(&types)?),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOURCE: &str = r#"
        /// One thing.
        ///
        /// ```ts
        /// run();
        /// ```
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase", rename = "Thing")]
        pub struct ThingReport {
            /// How many.
            pub entry_count: usize,
            pub heads: [usize; 2],
            pub worst: Option<f64>,
            #[serde(skip_serializing_if = "Option::is_none")]
            pub kept: Option<Vec<Vec<Kind>>>,
            #[serde(flatten)]
            pub more: Option<More>,
        }
        #[derive(Serialize)]
        struct More { map: BTreeMap<&'static str, u64> }
        /// A kind.
        #[derive(Serialize)]
        #[serde(rename_all = "lowercase")]
        enum Kind {
            /// The first.
            Eos,
            Length,
        }
        #[derive(Serialize)]
        #[serde(tag = "type", rename_all = "kebab-case")]
        enum Event { BeDone(Box<ThingReport>), Text { text: String }, Closed }
    "#;

    fn types(sources: &Sources) -> Types<'_> {
        let mut types = Types::new(sources);
        types.add("Event").unwrap();
        types
    }

    #[test]
    fn declarations_become_typescript() {
        let mut sources = Sources::default();
        sources.add(SOURCE).unwrap();
        let text = typescript::types(&types(&sources), &HashSet::new()).unwrap();
        for part in [
            "/** How many. */\n  entryCount: number;",
            "  heads: [number, number];\n  worst: number | null;\n  kept?: Kind[][];\n}",
            "/**\n * One thing.\n *\n * @example\n * ```ts\n * run();\n * ```\n */\nexport interface Thing extends Partial<More> {",
            "  map: Record<string, number>;",
            "export type Kind = \"eos\" | \"length\";",
            "export interface BeDoneEvent extends Thing {\n  /** Which kind it is. */\n  type: \"be-done\";\n}",
            "export interface TextEvent {\n  /** Which kind it is. */\n  type: \"text\";\n  text: string;\n}",
            "export type Event = BeDoneEvent | TextEvent | ClosedEvent;",
        ] {
            assert!(text.contains(part), "{part}\nis not in\n{text}");
        }
    }

    #[test]
    fn declarations_become_a_schema() {
        let mut sources = Sources::default();
        sources.add(SOURCE).unwrap();
        let schema: serde_json::Value = serde_json::from_str(&schema::document(&types(&sources)).unwrap()).unwrap();
        let done = &schema["$defs"]["BeDoneEvent"];
        assert_eq!(done["properties"]["type"]["const"], "be-done");
        assert_eq!(done["properties"]["worst"]["type"], serde_json::json!(["number", "null"]));
        assert_eq!(done["required"], serde_json::json!(["type", "entryCount", "heads", "worst"]));
        assert_eq!(done["properties"]["heads"]["maxItems"], 2);
    }

    #[test]
    fn a_type_that_is_not_understood_is_an_error_and_not_a_guess() {
        let refused = |source: &str| {
            let mut sources = Sources::default();
            sources.add(source).and_then(|()| Types::new(&sources).add("Event").map(drop)).unwrap_err()
        };
        assert!(refused("#[derive(Serialize)] struct Event { at: Instant }").contains("no type `Instant`"));
        assert!(refused("#[derive(Serialize)] struct Event(u8, u8);").contains("Event: xtask knows"));
        assert!(refused("#[derive(Serialize)] #[serde(into = \"X\")] struct Event { a: u8 }").contains("`into`"));
        let twice = "mod a {} #[derive(Serialize)] struct Event { a: A } #[derive(Serialize)] struct A {}";
        assert!(refused(&format!("{twice} #[derive(Serialize)] enum A {{}}")).contains("2 types are named `A`"));
    }
}
