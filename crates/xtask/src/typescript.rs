//! The TypeScript of the methods, in the format of the repository's formatter.

use prefixkv_core::method::{MethodSpec, OptionKind, OptionSpec, Role, Variant};

use crate::words;

/// The longest line that the formatter makes.
pub(crate) const WIDTH: usize = 120;
pub(crate) const HEADER: &str =
    "// Written by `cargo xtask gen` from the specifications of the engine; edit those instead.\n";

/// `ts/generated/methods.ts`.
pub(crate) fn methods(specs: &[MethodSpec]) -> String {
    let union: Vec<String> = specs.iter().map(|spec| format!("  | {}", stage(spec))).collect();
    let parts: Vec<String> = specs.iter().map(constructor).collect();
    format!(
        r#"{HEADER}import type {{
  BitsSource,
  CalibrationSource,
  ChannelsSource,
  CodebookSource,
  DirectionsSource,
  HeadsSource,
  SharingSource,
}} from "../calibration.ts";
import {{ stage }} from "../options/stage.ts";
import type {{ Keep }} from "./wire.ts";

/**
 * A method that makes the cache small, with its options: a plain frozen object that can be sent, stored and compared. The
 * functions named as the methods make it; an object literal of the same form is as good.
 *
 * @example
 * ```ts
 * import {{ type CacheMethod, h2o, prefixkv }} from "prefixkv";
 *
 * const methods: CacheMethod[] = [prefixkv({{ keep: 0.5 }}), h2o({{ keep: {{ tokens: 64 }} }}), {{ method: "knorm", keep: 0.25 }}];
 * console.log(JSON.stringify(methods));
 * ```
 */
export type CacheMethod =
{union};

/** A method's options with its name. */
type Stage<Name extends string, Options = unknown> = Readonly<{{ method: Name }} & Options>;

{parts}
"#,
        union = union.join("\n"),
        parts = parts.concat().trim_end(),
    )
}

/// `ts/generated/method_table.ts`, which imports nothing: what reads the options of methods needs it.
pub(crate) fn table(specs: &[MethodSpec]) -> String {
    let names: Vec<String> = specs.iter().map(|spec| string(spec.name)).collect();
    let line = format!("export type MethodName = {};", names.join(" | "));
    let names = match line.chars().count() > WIDTH {
        true => format!("export type MethodName =\n  | {};", names.join("\n  | ")),
        false => line,
    };
    let table: Vec<String> = specs.iter().map(row).collect();
    format!(
        r#"{HEADER}
/** The name of a method. */
{names}

/** An option of a method, for the command line. */
export interface MethodOption {{
  name: string;
  kind:
    | "count"
    | "share"
    | "flag"
    | "choice"
    | "number"
    | "calibration"
    | "layers"
    | "sharing"
    | "pairs"
    | "bits"
    | "channels"
    | "codebooks"
    | "directions"
    | "latents"
    | "heads";
  /** The values that it takes, in words. */
  values: string;
  /** Null where leaving it out means something of its own. */
  default: string | number | boolean | null;
  text: string;
}}

/** Facts of a method, for the command line. */
export interface MethodFacts {{
  name: MethodName;
  title: string;
  summary: string;
  source: string;
  /** How what is kept relates to the asked size: met to the entry, never more, or not asked for. */
  budget: "exact" | "atmost" | "outcome";
  /**
   * Whether it chooses entries, goes behind a method and changes what that does, or stores what stays (alone or behind a method) or has
   * layers share entries (alone or before a method).
   */
  role: "chooses" | "refines" | "stores" | "shares";
  options: readonly MethodOption[];
  /** Values of the option `variant` whose defaults are others, with those; what is not listed has the option's default. */
  variants: Readonly<Record<string, Readonly<Record<string, string | number | boolean>>>>;
}}

/** Every method, in the order of the docs. */
export const methods: readonly MethodFacts[] = [
{table}];
"#,
        table = table.concat(),
    )
}

fn stage(spec: &MethodSpec) -> String {
    match has_options(spec) {
        true => format!("Stage<{}, {}>", string(spec.name), options_name(spec)),
        false => format!("Stage<{}>", string(spec.name)),
    }
}

fn has_options(spec: &MethodSpec) -> bool {
    spec.takes_keep() || !spec.options.is_empty()
}

fn options_name(spec: &MethodSpec) -> String {
    let (first, rest) = spec.name.split_at(1);
    format!("{}{rest}Options", first.to_uppercase())
}

/// A method's options and its constructor.
fn constructor(spec: &MethodSpec) -> String {
    let name = spec.name;
    let options = options_name(spec);
    let mut fields = String::new();
    if spec.takes_keep() {
        if words::keep_is_optional(spec) {
            fields.push_str(&comment(
                "How much of the cache is kept. May be left out where the calibration holds exactly one size.",
                "  ",
            ));
            fields.push_str("  keep?: Keep;\n");
        } else {
            fields.push_str(&comment("How much of the cache is kept.", "  "));
            fields.push_str("  keep: Keep;\n");
        }
    }
    for option in spec.options {
        fields.push_str(&comment(&option_text(option, spec.variants), "  "));
        fields.push_str(&field(option));
    }
    let declared = match !has_options(spec) {
        true => String::new(),
        false => format!("/** Options of {{@link {name}}}. */\nexport interface {options} {{\n{fields}}}\n\n"),
    };
    let source = if spec.source.is_empty() { String::new() } else { format!(" {}.", spec.source) };
    let about = wrapped(&format!("{}: {}.{source}", spec.title, spec.summary), " * ");
    let call = words::call(spec);
    let needed = spec.takes_keep() && !words::keep_is_optional(spec);
    let (parameter, value) = match (has_options(spec), needed) {
        (false, _) => (String::new(), "{}"),
        (true, true) => (format!("options: {options}"), "options"),
        (true, false) => (format!("options: {options} = {{}}"), "options"),
    };
    format!(
        r#"{declared}/**
{about} *
 * @example
 * ```ts
 * import {{ {imports} }} from "prefixkv";
 *
 * await using model = await load();
 * const content = [image("scene.png"), "Describe the image in detail."];
 * const {{ memory }} = await model.generate({{ messages: [{{ role: "user", content }}], cache: {call} }});
 * console.log(memory.resident / memory.full);
 * ```
 */
{head}
  return stage({quoted}, {value});
}}

"#,
        imports = words::imports(spec),
        head = head(name, &parameter, &stage(spec)),
        quoted = string(name),
    )
}

/// An optional field; the values of a choice go to lines of their own where they do not fit.
fn field(option: &OptionSpec) -> String {
    let line = format!("  {}?: {};", option.name, kind_type(option.kind));
    match option.kind {
        OptionKind::Choice { values } if line.chars().count() > WIDTH => {
            let values: String = values.iter().map(|value| format!("\n    | {}", string(value))).collect();
            format!("  {}?:{values};\n", option.name)
        }
        _ => line + "\n",
    }
}

/// The first line of a constructor, or what it takes on a line of its own.
fn head(name: &str, parameter: &str, stage: &str) -> String {
    let line = format!("export function {name}({parameter}): {stage} {{");
    match line.chars().count() > WIDTH {
        true => format!("export function {name}(\n  {parameter},\n): {stage} {{"),
        false => line,
    }
}

fn option_text(option: &OptionSpec, variants: &[Variant]) -> String {
    let mut default = match words::default(option) {
        Some(default) => format!("; `{default}` by default"),
        None => String::new(),
    };
    for (index, variant) in variants.iter().enumerate() {
        let own = variant.default(option);
        let told = variants[..index].iter().any(|before| before.default(option) == own);
        if own == option.default || told {
            continue;
        }
        let same: Vec<String> = variants
            .iter()
            .filter(|other| other.default(option) == own)
            .map(|other| format!("`\"{}\"`", other.name))
            .collect();
        default.push_str(&format!(", `{own}` with `variant` {}", same.join(" and ")));
    }
    format!("{} {}{default}.", words::sentence(option.text), capital(&words::values(option.kind)))
}

fn capital(text: &str) -> String {
    words::sentence(text).trim_end_matches('.').to_owned()
}

fn kind_type(kind: OptionKind) -> String {
    match kind {
        OptionKind::Count { .. } | OptionKind::Share | OptionKind::Number { .. } => "number".into(),
        OptionKind::Flag => "boolean".into(),
        OptionKind::Choice { values } => values.iter().map(|value| string(value)).collect::<Vec<_>>().join(" | "),
        OptionKind::Calibration => "CalibrationSource".into(),
        OptionKind::Layers => "Readonly<Record<number, number>>".into(),
        OptionKind::Sharing => "SharingSource".into(),
        OptionKind::Pairs => "readonly (readonly [keys: number, values: number])[]".into(),
        OptionKind::Bits => "BitsSource".into(),
        OptionKind::Channels => "ChannelsSource".into(),
        OptionKind::Codebooks => "CodebookSource".into(),
        OptionKind::Directions | OptionKind::Latents => "DirectionsSource".into(),
        OptionKind::Heads => "HeadsSource".into(),
    }
}

fn kind_name(kind: OptionKind) -> &'static str {
    match kind {
        OptionKind::Count { .. } => "count",
        OptionKind::Share => "share",
        OptionKind::Number { .. } => "number",
        OptionKind::Flag => "flag",
        OptionKind::Choice { .. } => "choice",
        OptionKind::Calibration => "calibration",
        OptionKind::Layers => "layers",
        OptionKind::Sharing => "sharing",
        OptionKind::Pairs => "pairs",
        OptionKind::Bits => "bits",
        OptionKind::Channels => "channels",
        OptionKind::Codebooks => "codebooks",
        OptionKind::Directions => "directions",
        OptionKind::Latents => "latents",
        OptionKind::Heads => "heads",
    }
}

fn role(role: Role) -> &'static str {
    match role {
        Role::Chooses => "chooses",
        Role::Refines => "refines",
        Role::Stores => "stores",
        Role::Shares => "shares",
    }
}

/// A method in the table.
fn row(spec: &MethodSpec) -> String {
    let fields = [("name", spec.name), ("title", spec.title), ("summary", spec.summary), ("source", spec.source)];
    let mut text = String::from("  {\n");
    for (name, value) in fields {
        text.push_str(&property(name, &string(value), "    "));
    }
    text.push_str(&property("budget", &string(words::budget_name(spec.budget)), "    "));
    text.push_str(&property("role", &string(role(spec.role)), "    "));
    let options: Vec<String> = spec.options.iter().map(option_row).collect();
    match options.is_empty() {
        true => text.push_str("    options: [],\n"),
        false => text.push_str(&format!("    options: [\n{}    ],\n", options.concat())),
    }
    match spec.variants.is_empty() {
        true => text.push_str("    variants: {},\n"),
        false => {
            let variants: Vec<String> = spec.variants.iter().map(variant_row).collect();
            text.push_str(&format!("    variants: {{\n{}    }},\n", variants.concat()));
        }
    }
    text + "  },\n"
}

fn variant_row(variant: &Variant) -> String {
    let defaults: Vec<String> = variant.defaults.iter().map(|(name, default)| format!("{name}: {default}")).collect();
    format!("      {}: {{ {} }},\n", variant.name, defaults.join(", "))
}

fn option_row(option: &OptionSpec) -> String {
    let default = match words::default(option).map(serde_json::from_str::<serde_json::Value>) {
        Some(Ok(serde_json::Value::String(text))) => string(&text),
        Some(Ok(value)) => value.to_string(),
        _ => "null".into(),
    };
    let fields = [
        ("name", string(option.name)),
        ("kind", string(kind_name(option.kind))),
        ("values", string(&words::values(option.kind).replace('`', ""))),
        ("default", default),
        ("text", string(option.text)),
    ];
    let fields: Vec<String> = fields.iter().map(|(name, value)| property(name, value, "        ")).collect();
    format!("      {{\n{}      }},\n", fields.concat())
}

/// A property of an object; a value that does not fit goes to a line of its own. Behind a short name it does so only if it fits there: Biome
/// would gain too little otherwise.
pub(crate) fn property(name: &str, value: &str, indent: &str) -> String {
    let line = format!("{indent}{name}: {value},");
    let own = format!("{indent}  {value},");
    match line.chars().count() > WIDTH && (own.chars().count() <= WIDTH || name.len() >= 5) {
        true => format!("{indent}{name}:\n{own}\n"),
        false => line + "\n",
    }
}

/// A string literal with the quotes that need fewer escapes.
pub(crate) fn string(text: &str) -> String {
    let double = text.matches('"').count();
    match double > text.matches('\'').count() {
        true => format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'")),
        false => format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"")),
    }
}

/// A doc comment, on one line where it fits.
fn comment(text: &str, indent: &str) -> String {
    let line = format!("{indent}/** {text} */");
    match line.chars().count() > WIDTH {
        true => format!("{indent}/**\n{}{indent} */\n", wrapped(text, &format!("{indent} * "))),
        false => line + "\n",
    }
}

/// Lines of at most the width, each with a prefix.
pub(crate) fn wrapped(text: &str, prefix: &str) -> String {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let fits = |line: &String| prefix.len() + line.chars().count() + 1 + word.chars().count() <= WIDTH;
        match lines.last_mut() {
            Some(line) if line.is_empty() => line.push_str(word),
            Some(line) if fits(line) => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.into()),
        }
    }
    lines.iter().map(|line| format!("{prefix}{line}\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_take_the_quotes_that_need_fewer_escapes() {
        assert_eq!(string("plain"), "\"plain\"");
        assert_eq!(string("with \"these\""), "'with \"these\"'");
        assert_eq!(string("Pillow's"), "\"Pillow's\"");
        assert_eq!(string("'a' \"b\""), "\"'a' \\\"b\\\"\"");
    }

    #[test]
    fn long_texts_are_wrapped() {
        let text = "word ".repeat(60);
        let comment = comment(text.trim(), "  ");
        assert!(comment.starts_with("  /**\n   * word word") && comment.ends_with("word\n   */\n"), "{comment}");
        assert!(comment.lines().all(|line| line.len() <= WIDTH));
        assert!(property("text", &string(&"x".repeat(112)), "  ").starts_with("  text:\n    \"x"));
        assert!(property("text", &string(&"x".repeat(120)), "  ").starts_with("  text: \"x"));
    }
}
