//! Types that cross a door, from the sources of the engine: TypeScript, the JSON schema, flags of the command line, tables of the guides.
//!
//! The sources are read instead of the types, so that the engine carries no descriptions of itself: serde's attributes decide what is
//! written, and the same attributes decide what is described. docs/design/wire.md says more.

mod docs;
mod schema;
mod shape;
mod source;
mod tables;
mod typescript;

use std::collections::HashSet;
use std::fs;
use std::path::Path;

use prefixkv_core::wire::{DOORS, OPS};

use docs::Docs;
use shape::{Field, Form, Object, Shape, Types};
use source::{Sources, pascal};

/// Types that go into the engine in the options of methods.
const INPUTS: [&str; 8] = [
    "Keep",
    "Calibration",
    "SharingCalibration",
    "BitsCalibration",
    "ChannelsCalibration",
    "CodebookCalibration",
    "DirectionsCalibration",
    "HeadsCalibration",
];
/// Types that come out of the engine.
const OUTPUTS: [&str; 2] = ["About", "Event"];
/// Pages with tables of options.
const PAGES: [&str; 3] = ["docs/cache.md", "docs/cli.md", "docs/generate.md"];

/// The generated files with their contents.
pub(crate) fn files(root: &Path) -> Result<Vec<(String, String)>, String> {
    let sources = Sources::read(root)?;
    let mut types = Types::new(&sources);
    // Lists that go into the engine are only read.
    let mut inputs = HashSet::new();
    for request in requests(&mut types)? {
        types.parts(&request, &mut inputs);
    }
    for rust in INPUTS {
        let name = types.add(rust)?;
        types.parts(&name, &mut inputs);
    }
    for rust in OUTPUTS {
        types.add(rust)?;
    }
    let mut files = vec![
        ("ts/generated/wire.ts".into(), typescript::types(&types, &inputs)?),
        ("ts/generated/flags.ts".into(), tables::flags(&types)?),
        ("ts/generated/rules.ts".into(), tables::rules(&types)?),
        ("docs/schema/wire.schema.json".into(), schema::document(&types)?),
    ];
    for path in PAGES {
        let page = fs::read_to_string(root.join(path)).map_err(|error| format!("cannot read {path}: {error}"))?;
        files.push((
            path.into(),
            tables::fill(&types, &page.replace("\r\n", "\n")).map_err(|reason| format!("{path}: {reason}"))?,
        ));
    }
    Ok(files)
}

/// Adds every request from the tables of the engine; gives their names.
fn requests(types: &mut Types) -> Result<Vec<String>, String> {
    let mut requests = Vec::new();
    for door in DOORS {
        requests.push(request(types, door.name, door.docs, door.parts, Vec::new())?);
    }
    let mut members = Vec::new();
    for op in OPS {
        members.push(request(types, op.name, op.docs, op.parts, vec![Field::tag("op", op.name)])?);
    }
    let docs = Docs { text: vec!["Requests that an engine takes.".into()], ..Docs::default() };
    types.put("EngineRequest", docs, Form::Union(members.iter().cloned().map(Shape::Named).collect()));
    requests.extend(members);
    Ok(requests)
}

fn request(types: &mut Types, name: &str, docs: &[&str], parts: &[&str], fields: Vec<Field>) -> Result<String, String> {
    let mut object = Object { bases: Vec::new(), fields };
    for part in parts {
        object.bases.push((types.add(part)?, false));
    }
    let name = format!("{}Request", pascal(name));
    types.put(&name, Docs::parse(docs)?, Form::Object(object));
    Ok(name)
}

#[cfg(test)]
mod tests {
    use prefixkv_core::sample::SamplerOptions;

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
    fn what_crosses_no_door_may_be_anything() {
        let mut sources = Sources::default();
        let other = "/// ```json\n/// {\n/// ```\n#[derive(Deserialize)] #[serde(try_from = \"X\", bound = \"\")] struct Other(u8, u8);";
        sources.add(other).and_then(|()| sources.add(SOURCE)).unwrap();
        assert!(typescript::types(&types(&sources), &HashSet::new()).is_ok());
        assert!(Types::new(&sources).add("Other").unwrap_err().starts_with("Other: "));
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

    /// The names that are read from the sources are those that the engine's reader has from serde.
    #[test]
    fn requests_have_the_fields_that_the_engine_reads() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let sources = Sources::read(&root).unwrap();
        let mut types = Types::new(&sources);
        requests(&mut types).unwrap();
        let doors = DOORS.iter().map(|door| (door.name, (door.fields)(), Vec::new()));
        let ops = OPS.iter().map(|op| (op.name, (op.fields)(), vec!["op".to_owned()]));
        for (name, known, tag) in doors.chain(ops) {
            let request = types.get(&format!("{}Request", pascal(name))).unwrap();
            let Form::Object(object) = &request.form else { panic!("{name}") };
            let described: Vec<String> = types.fields(object).into_iter().map(|field| field.name).collect();
            let read: Vec<String> = tag.into_iter().chain(known.into_iter().map(str::to_owned)).collect();
            assert_eq!(described, read, "{name}");
        }
    }

    /// A default that is a number or a flag is the one that reading an empty object gives.
    #[test]
    fn documented_defaults_are_those_of_the_engine() {
        let defaults = SamplerOptions::default();
        let real = [("temperature", defaults.temperature), ("repetitionPenalty", defaults.repetition_penalty)];
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let sources = Sources::read(&root).unwrap();
        let mut types = Types::new(&sources);
        requests(&mut types).unwrap();
        let Some(Form::Object(object)) = types.get("SamplingOptions").map(|one| &one.form) else { panic!() };
        for (name, value) in real {
            let field = object.fields.iter().find(|field| field.name == name).unwrap();
            assert_eq!(field.docs.default, Some(value.to_string()), "{name}");
        }
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
