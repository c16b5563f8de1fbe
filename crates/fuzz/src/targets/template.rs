//! Chat templates and the messages for them.

use prefixkv_core::text::{ChatTemplate, Content, Message, Part};
use serde_json::{Value, json};

use crate::folder::{object, read_json};
use crate::target::{Kind, Target, outcome};

pub const TARGET: Target = Target {
    name: "template",
    reads: "chat templates and messages",
    kind: Kind::Json,
    memory: 256 << 20,
    short: 300,
    words: || {
        &[
            "{{ ",
            " }}",
            "{% ",
            " %}",
            "{%- ",
            " -%}",
            "{#",
            "#}",
            "for m in messages",
            "endfor",
            "if ",
            "else",
            "elif",
            "endif",
            "set x = ",
            "set ns = namespace(x=1)",
            "ns.x",
            "messages",
            "m.role",
            "m['content']",
            "loop.index0",
            "loop.last",
            "range(99999999)",
            " | tojson",
            " | tojson(indent=9)",
            " | trim",
            " | join(',')",
            " | list",
            " | length",
            " | reverse",
            " * 9999",
            " ~ 'b'",
            " ** 99",
            " // 0",
            " % 0",
            "raise_exception('x')",
            "strftime_now('%d %b %Y')",
            ".split('')",
            ".replace('', 'a')",
            "macro f(x)",
            "endmacro",
            "f(1)",
            "generation",
            "endgeneration",
            "break",
            "continue",
            "[::2]",
            "[-1:]",
            "is string",
            "is mapping",
            "not in",
            "dict(a=1)",
            "9223372036854775807",
            "-",
            "1e308",
            "'\\u0000'",
            "a.b",
            "{% for i in range(60) %}",
            "{% endfor %}",
            "{{ 'a' * 9999999 }}",
            "{% set ns.x = ns.x ~ 'a' %}",
            "range(99999)|list",
            "{{ [1] * 9999999 }}",
            "|indent(99999999)",
            ".center(99999999)",
            ".ljust(99999999)",
            "|batch(2)",
            "|slice(99999999)",
            ".join(range(99999))",
            "|format(1)",
            "'%99999999d'",
            "|round(99)",
            "|unique|sort|groupby('role')",
            ".zfill(99999999)",
            "|truncate(9)",
            "|wordwrap(1)",
            "|urlencode",
            "|map(attribute='role')",
            "|selectattr('role')",
            "|default('x', true)",
            "call ",
            "endcall",
            "filter upper",
            "endfilter",
            "recursive",
            "loop(m)",
            "%Y%5N%-d%:",
            "lipsum()",
            "ns.x ~ ns.x",
            "ns.x + ns.x",
            "[ns.x, ns.x]",
            "{% set ns.x = [ns.x, ns.x] %}",
            "ns.x == ns.y",
            "[ns.x, ns.x]|sort",
            "{% set q %}{{ ns.x }}{{ ns.x }}{% endset %}",
            "'%2000000000d' % 1",
            "'{:>2000000000}'.format(1)",
            "'{0[0]}{1!r:>9}'.format(",
            "'%(a)s %-5.3f %c' % ",
            "'<image>'",
            "image_token",
            ".split('>')",
            "varargs|length",
            "kwargs",
            "caller()",
            "cycler(1, 2).next()",
            "joiner()()",
            "loop.previtem",
            "loop.changed(m)",
            "{% set x, y = ",
            "{% with a = 1 %}",
            "{% endwith %}",
            "{% raw %}",
            "{% endraw %}",
            "{%+ ",
        ]
    },
    seeds,
    run,
};

fn seeds() -> Vec<Vec<u8>> {
    let messages = json!([{ "role": "user", "content": [{ "type": "image", "index": 0 }, { "type": "text", "text": "What?" }] },
        { "role": "assistant", "content": "That." }]);
    let of = |template: Value| json!({ "template": template, "messages": messages });
    let golden = read_json("tests/golden/data/templates.json");
    let golden = golden.as_array().expect("a list").iter().map(|case| of(case["template"].clone()));
    let own = [
        "{% for m in messages recursive %}{{ loop.index }}{{ m|tojson(indent=2) }}{% endfor %}",
        "{% macro f(x) %}{{ f(x) if x else 'a' * 10 }}{% endmacro %}{{ f(0) }}",
        "{% set ns = namespace(x='a') %}{% for i in range(9) %}{% set ns.x = ns.x ~ 'ab' %}{% endfor %}{{ ns.x }}",
        "{{ strftime_now('%d %b %Y') }}{{ messages[0]['role'].upper().split('')[-1:] }}",
    ];
    golden.chain(own.map(|source| of(source.into()))).map(|seed| seed.to_string().into_bytes()).collect()
}

fn run(data: &[u8]) -> String {
    let Some(mut input) = object(data) else { return "no object".into() };
    let source = match input.remove("template") {
        Some(Value::String(source)) => source,
        _ => return "no template".into(),
    };
    let template = ChatTemplate::from_source(&source, "<s>", "</s>");
    let Ok(found) = &template else { return contained(outcome(&template, &["prompt"])) };
    let Ok(messages) = serde_json::from_value::<Vec<Message>>(input.remove("messages").unwrap_or_default()) else {
        return "no messages".into();
    };
    let first = found.render(&messages, true);
    if let Ok(rendered) = &first {
        assert!(rendered.text.len() <= 4 << 20);
        let images = messages.iter().flat_map(|message| match &message.content {
            Content::Parts(parts) => parts.as_slice(),
            Content::Text(_) => &[],
        });
        let images = images.filter(|part| matches!(part, Part::Image { .. })).count();
        assert_eq!(rendered.pictures.len(), images, "one placeholder for each image");
        assert!(rendered.pictures.iter().all(|range| rendered.text.get(range.clone()).is_some()));
        assert!(rendered.said.iter().all(|range| rendered.text.get(range.clone()).is_some()));
    }
    contained(outcome(&first, &["prompt"]))
}

/// A panic is caught and becomes an error; it is still one to know of.
fn contained(outcome: String) -> String {
    assert!(!outcome.contains("the chat template cannot be run"), "the interpreter panics");
    outcome
}
