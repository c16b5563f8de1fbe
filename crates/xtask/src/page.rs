//! The pages of the methods.

use prefixkv_core::method::{
    Attention, Decision, Eviction, Lanes, Method, MethodSpec, OptionKind, OptionSpec, Role, VARIANT, Variant,
};

use crate::combinations::calibration;
use crate::words::{self, BEFORE, SOURCES};

pub(crate) const NOTE: &str =
    "<!-- Written by `cargo xtask gen` from the specifications of the engine; edit those instead. -->\n";

/// `docs/methods/README.md`.
pub(crate) fn overview(specs: &[MethodSpec]) -> String {
    let rows: Vec<String> = specs.iter().map(overview_row).collect();
    format!(
        r#"{NOTE}
# Methods

A method says which entries of the cache stay. It is given to `generate`, `score` and `chat` as `cache`, and to the command line as `--method`; [../cache.md](../cache.md) says what `keep` means and how to measure what a method does.

| method | constructor | what it does | size | source |
| --- | --- | --- | --- | --- |
{}
## How they decide

With their defaults, about a prompt of {} positions, 576 of them an image. *By*: what an entry is ranked by. *Sizes*: the budget that splits the whole over layers and heads ([custom.md](custom.md) says what they are). *Lanes*: whether the heads of a layer keep entries of their own. *When*: before the first layer, after each layer's attention, so that never more than one layer is whole, or after the prompt. *Attention*: the queries whose attention to all entries is gathered; the less, the cheaper. *Then*: which entry goes for each generated token.

| method | by | sizes | lanes | when | attention | then | saves compute | source |
| --- | --- | --- | --- | --- | --- | --- | --- | --- |
{}
Every method that takes `keep` gives the text of the full cache at `keep: 1`. A stage, `cache: [snapkv({{ keep: 0.4 }}), merge()]`, changes what the method before it does; a store, `cache: [snapkv({{ keep: 0.4 }}), int4()]`, keeps what it leaves in fewer bits, and comes last or stands alone; `kvsharer` has layers share entries, and comes first or stands alone; [combinations.md](combinations.md) says what goes with what, and [../kvpress.md](../kvpress.md) which presses of NVIDIA's kvpress keep the same entries. To add one, see [CONTRIBUTING.md](../../CONTRIBUTING.md).
"#,
        rows.concat(),
        Decision::PROMPT,
        specs.iter().filter_map(decision_row).collect::<String>(),
    )
}

/// How a method decides that needs no more than a size.
fn decision_row(spec: &MethodSpec) -> Option<String> {
    if spec.role != Role::Chooses {
        return None;
    }
    let mut cache = serde_json::json!({ "method": spec.name });
    if spec.takes_keep() {
        cache["keep"] = serde_json::json!(0.5);
    }
    if let Some(calibration) = calibration(spec) {
        cache["calibration"] = calibration;
    }
    let method = Method::parse(&cache).unwrap_or_else(|error| panic!("{}: {error}", spec.name))?;
    let decision = method.decision()?;
    let attention = match decision.attention {
        None => "see its page".to_owned(),
        Some(Attention::Nothing) => "none".to_owned(),
        Some(Attention::All) => "all".to_owned(),
        Some(Attention::Queries(1)) => "the last query".to_owned(),
        Some(Attention::Queries(some)) => format!("{some} queries"),
    };
    let then = match decision.eviction {
        None => "see its page".to_owned(),
        Some(Eviction::Never) => "none".to_owned(),
        Some(Eviction::Distance(_)) => "one at a fixed distance".to_owned(),
        Some(Eviction::LowestScore) => "the lowest score".to_owned(),
        Some(Eviction::Oldest) => "the oldest".to_owned(),
        Some(Eviction::Together { every, .. }) => format!("some, every {every} tokens"),
    };
    let arxiv = spec.source.split("arXiv ").nth(1).map(|rest| rest.split([' ', ')', ',']).next().unwrap_or(rest));
    Some(format!(
        "| [{}]({}.md) | {} | {} | per {} | {} | {attention} | {then} | {} | {} |\n",
        spec.title,
        spec.name,
        decision.score.unwrap_or("see its page"),
        decision.budget.unwrap_or("-"),
        if decision.lanes == Lanes::PerHead { "head" } else { "layer" },
        match (decision.before_layers, decision.layer_by_layer) {
            (true, _) => "before all layers",
            (false, true) => "each layer",
            (false, false) => "the prompt",
        },
        if decision.saves_compute { "yes" } else { "no" },
        arxiv.map_or_else(|| "-".to_owned(), |id| format!("arXiv {id}")),
    ))
}

fn overview_row(spec: &MethodSpec) -> String {
    let size = words::budget(spec.budget).split(':').next().unwrap_or_default();
    let source = if spec.source.is_empty() { "-" } else { spec.source };
    format!(
        "| [{title}]({name}.md) | `{name}()` | {summary} | {size} | {source} |\n",
        title = spec.title,
        name = spec.name,
        summary = spec.summary
    )
}

/// `docs/methods/NAME.md`.
pub(crate) fn method(spec: &MethodSpec) -> String {
    let source = if spec.source.is_empty() { String::new() } else { format!(" Source: {}.", spec.source) };
    let name = spec.name;
    let flags = match (spec.takes_keep(), spec.role) {
        (true, _) => match words::calibrated(spec) {
            Some((_, file)) => format!("--method {name} --keep 0.5 --calibration {file}"),
            None => format!("--method {name} --keep 0.5"),
        },
        (false, Role::Refines) => format!("--method {BEFORE} --keep 0.5 --stage {name}"),
        (false, Role::Stores) if let Some((_, file)) = words::calibrated(spec) => {
            format!("--method {name} --calibration {file}")
        }
        (false, Role::Shares) => format!("--method {name} --set 'sources={SOURCES}'"),
        (false, _) => format!("--method {name}"),
    };
    // What `--set` sets is the method's.
    let set = spec.options.iter().find_map(example).filter(|_| spec.role != Role::Refines).unwrap_or_default();
    format!(
        r#"{NOTE}
# {title}

{summary}{source}

```ts
import {{ {imports} }} from "prefixkv";

await using model = await load();
const content = [image("scene.png"), "Describe the image in detail."];
const {{ text, memory }} = await model.generate({{ messages: [{{ role: "user", content }}], cache: {call} }});
console.log(text, memory.keptPerLayer);
```

```sh
prefixkv describe scene.png {flags}{set}
```

The size is {budget}.

## Options

{options}
## What it does

{page}
"#,
        title = spec.title,
        summary = words::sentence(spec.summary),
        imports = words::imports(spec),
        call = words::call(spec),
        budget = words::budget(spec.budget),
        options = options(spec),
        page = spec.page.trim(),
    )
}

/// How an option is set on the command line.
fn example(option: &OptionSpec) -> Option<String> {
    let value = words::default(option)?;
    Some(format!(" --set {}={}", option.name, value.trim_matches('"')))
}

fn options(spec: &MethodSpec) -> String {
    let mut rows = Vec::new();
    // Variants with the same defaults share a column.
    let mut columns: Vec<(Vec<&str>, &Variant)> = Vec::new();
    for variant in spec.variants {
        match columns.iter_mut().find(|(_, other)| other.defaults == variant.defaults) {
            Some((names, _)) => names.push(variant.name),
            None => columns.push((vec![variant.name], variant)),
        }
    }
    let cells = |of: &dyn Fn(&Variant) -> String| -> String {
        columns.iter().map(|(_, variant)| format!(" {} |", of(variant))).collect()
    };
    if spec.takes_keep() {
        let default = if words::keep_is_optional(spec) { "the calibration's, when it has one size" } else { "needed" };
        rows.push(format!(
            "| `keep` | a share above 0 and up to 1, `{{ tokens: N }}` or `{{ bytes: N }}` | {default} |{} how much of the cache is kept |\n",
            cells(&|_| "the same".into())
        ));
    }
    rows.extend(spec.options.iter().map(|option| {
        let values = match option.kind {
            OptionKind::Calibration => "a [calibration](../cache.md#calibration)".into(),
            OptionKind::Codebooks => "a [calibration of codebooks](../cache.md#codebooks)".into(),
            OptionKind::Directions => "a [calibration of directions](../cache.md#directions)".into(),
            OptionKind::Latents => {
                "a [calibration of directions of two layers](../cache.md#latents-of-two-layers)".into()
            }
            OptionKind::Heads => "a [calibration of the scores of heads](../cache.md#scores-of-heads)".into(),
            OptionKind::Sharing => "a [calibration of layers that share](../cache.md#layers-that-share)".into(),
            OptionKind::Channels => "a [calibration of the order of channels](../cache.md#orders-of-channels)".into(),
            OptionKind::Bits => "a [calibration of the bits of each layer](../cache.md#bits-of-each-layer)".into(),
            kind => words::values(kind),
        };
        let shown = |default: &str| if default.is_empty() { "none".into() } else { format!("`{default}`") };
        let others = cells(&|variant| match variant.default(option) {
            _ if option.name == VARIANT => String::new(),
            same if same == option.default => "the same".into(),
            other => shown(other),
        });
        format!("| `{}` | {values} | {} |{others} {} |\n", option.name, shown(option.default), option.text)
    }));
    if rows.is_empty() {
        return "None.\n".into();
    }
    let names = |names: &[&str]| names.iter().map(|name| format!("`\"{name}\"`")).collect::<Vec<_>>().join(", ");
    let heads: String =
        columns.iter().map(|(variants, _)| format!(" with `{VARIANT}` {} |", names(variants))).collect();
    let lines = " --- |".repeat(columns.len());
    format!("| option | values | default |{heads} meaning |\n| --- | --- | --- |{lines} --- |\n{}", rows.concat())
}
