use serde_json::json;

use super::super::fixtures::{tiny_llava, tiny_llava_dir};
use super::*;

const LLAVA: &str = include_str!("tests/llava.jinja");

fn messages(json: serde_json::Value) -> Vec<Message> {
    serde_json::from_value(json).unwrap()
}

fn conversation() -> Vec<Message> {
    messages(json!([
        { "role": "user", "content": [
            { "type": "text", "text": "What is this?" }, { "type": "image", "index": 0 }, { "type": "image", "index": 1 } ] },
        { "role": "assistant", "content": [{ "type": "text", "text": "A cat." }] },
        { "role": "user", "content": [{ "type": "text", "text": "Sure?\0 \u{e9}" }] },
    ]))
}

fn strings() -> Vec<Message> {
    messages(json!([
        { "role": "system", "content": "Be brief." },
        { "role": "user", "content": "Hi  " },
        { "role": "assistant", "content": "Hello" },
        { "role": "user", "content": "x <b> \"q\"" },
    ]))
}

fn compile(source: &str) -> ChatTemplate {
    ChatTemplate::from_source(source, "<s>", "</s>").unwrap()
}

fn render(source: &str) -> String {
    compile(source).render(&strings(), true).unwrap()
}

fn reason(result: Result<impl std::fmt::Debug>) -> String {
    match result.unwrap_err() {
        Error::Prompt { reason } => reason,
        other => panic!("{other:?}"),
    }
}

/// Each expected text is what transformers 5.23 renders.
#[test]
fn as_transformers() {
    let llava = compile(LLAVA);
    assert_eq!(
        llava.render(&conversation(), true).unwrap(),
        "USER: <image>\n<image>\nWhat is this? ASSISTANT: A cat. USER: Sure?\u{0} \u{e9} ASSISTANT:"
    );
    assert_eq!(
        llava.render(&conversation(), false).unwrap(),
        "USER: <image>\n<image>\nWhat is this? ASSISTANT: A cat. USER: Sure?\u{0} \u{e9} "
    );

    let tiny = ChatTemplate::from_folder(&tiny_llava_dir(), &tiny_llava()).unwrap();
    assert!(!tiny.is_fallback());
    assert_eq!(
        tiny.render(&conversation(), true).unwrap(),
        "USER: <image>\n<image>\nWhat is this? ASSISTANT: A cat.</s>USER: Sure?\u{0} \u{e9} ASSISTANT:"
    );
    assert_eq!(
        tiny.render(&strings(), true).unwrap(),
        " Be brief.</s>USER: Hi   ASSISTANT: Hello</s>USER: x <b> \"q\" ASSISTANT:"
    );

    let dialect = compile(include_str!("tests/dialect.jinja"));
    assert_eq!(
        dialect.render(&strings(), true).unwrap(),
        "<s><|USER|> Hi,\n[role=user][content=Hi  ]\n<|ASSISTANT|> Hello,\n[role=assistant][content=HeLLo]\n<|USER|> \"Q\"\n[role=user][content=x <b> \"q\"]\n<i>Be brief.</i><n>3</n> True Noneok[{\"role\": \"user\", \"content\": \"Hi  \"}, {\"role\": \"assistant\", \"content\": \"Hello\"}, {\"role\": \"user\", \"content\": \"x <b> \\\"q\\\"\"}]\n{\n  \"b\": [\n    1,\n    2.5,\n    true,\n    null\n  ],\n  \"a\": {}\n}\n{\"a\":[],\"b\":\"\\u00e9<>&\"}\nx1y3cba q+rkept Assistant:fix 2 z \u{c9} True dflt True None"
    );
    assert_eq!(
        dialect.render(&strings()[1..], false).unwrap(),
        "<s><|USER|> Hi,\n[role=user][content=Hi  ]\n<|ASSISTANT|> Hello,\n[role=assistant][content=HeLLo]\n<|USER|> \"Q\"\n[role=user][content=x <b> \"q\"]\n<i></i><n>3</n> True Noneok[{\"role\": \"user\", \"content\": \"Hi  \"}, {\"role\": \"assistant\", \"content\": \"Hello\"}, {\"role\": \"user\", \"content\": \"x <b> \\\"q\\\"\"}]\n{\n  \"b\": [\n    1,\n    2.5,\n    true,\n    null\n  ],\n  \"a\": {}\n}\n{\"a\":[],\"b\":\"\\u00e9<>&\"}\nx1y3cba q+rkept fix 2 z \u{c9} True dflt True None"
    );
}

#[test]
fn content_takes_the_form_the_template_knows() {
    // transformers loses the text here, as the template looks for parts only.
    let llava = compile(LLAVA);
    assert_eq!(llava.shape, Shape::Lists);
    assert_eq!(llava.render(&strings()[1..2], true).unwrap(), "USER: Hi   ASSISTANT:");

    for source in [
        "{% for m in messages %}{{ m.role + ':' + m.content }}{% endfor %}",
        "{% for m in messages %}{{ m.role }}:{{ m.content }}{% endfor %}",
    ] {
        let plain = compile(source);
        assert_eq!(plain.shape, Shape::Strings);
        assert_eq!(plain.render(&conversation()[..1], true).unwrap(), "user:<image>\n<image>\nWhat is this?");
    }
    assert_eq!(compile(super::source::FALLBACK).shape, Shape::Either);
    assert_eq!(compile("nothing").shape, Shape::Either);
}

#[test]
fn fallback() {
    let dir = tempfile::tempdir().unwrap();
    let template = ChatTemplate::from_folder(dir.path(), &tiny_llava()).unwrap();
    assert!(template.is_fallback());
    assert_eq!(
        template.render(&conversation(), true).unwrap(),
        "USER: <image>\n<image>\nWhat is this? ASSISTANT: A cat.</s>USER: Sure?\0 \u{e9} ASSISTANT:"
    );
    assert_eq!(
        template.render(&strings(), false).unwrap(),
        "Be brief. USER: Hi   ASSISTANT: Hello</s>USER: x <b> \"q\" ASSISTANT:"
    );
    assert_eq!(template.render(&[], true).unwrap(), "");
    let swapped = [strings()[1].clone(), strings()[0].clone()];
    assert_eq!(reason(template.render(&swapped, true)), "a system message must come first");
    let tool = messages(json!([{ "role": "tool", "content": "" }]));
    assert_eq!(reason(template.render(&tool, true)), "unknown role `tool`; use system, user or assistant");
}

#[test]
fn files_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
    let load = || ChatTemplate::from_folder(dir.path(), &tiny_llava());
    let rendered = || load().unwrap().render(&strings(), true).unwrap();

    write("processor_config.json", r#"{ "chat_template": "processor" }"#);
    assert_eq!(rendered(), "processor");
    let named = json!({ "chat_template": [
        { "name": "tool_use", "template": "tools" }, { "name": "default", "template": "tokenizer {{ bos_token }}" } ] });
    write("tokenizer_config.json", &named.to_string());
    assert_eq!(rendered(), "tokenizer <s>");
    write("chat_template.json", r#"{ "chat_template": "json" }"#);
    assert_eq!(rendered(), "json");
    write("chat_template.jinja", "jinja {{ eos_token }}\n");
    assert_eq!(rendered(), "jinja </s>");

    write("chat_template.jinja", "{% if %}");
    let error = load().unwrap_err();
    assert_eq!(error.code(), "model-file");
    assert!(error.to_string().contains("chat_template.jinja") && error.to_string().contains("syntax"), "{error}");
    std::fs::remove_file(dir.path().join("chat_template.jinja")).unwrap();
    for broken in ["{", r#"{ "chat_template": 1 }"#, r#"{ "chat_template": [{ "name": "rag", "template": "" }] }"#] {
        write("chat_template.json", broken);
        assert_eq!(load().unwrap_err().code(), "model-file");
    }
}

#[test]
fn failures_are_prompt_errors() {
    let raised = compile("{% if messages | length > 1 %}{{ raise_exception('roles must alternate') }}{% endif %}");
    assert_eq!(reason(raised.render(&strings(), true)), "roles must alternate");
    let in_macro = compile("{% macro f() %}{{ raise_exception('deep ' ~ 1) }}{% endmacro %}{{ f() }}");
    assert_eq!(reason(in_macro.render(&strings(), true)), "deep 1");
    assert!(reason(ChatTemplate::from_source("{{ a", "", "")).contains("syntax error"));
    assert!(reason(compile("{{ messages.nope.deeper }}").render(&strings(), true)).contains("undefined"));
    assert!(reason(compile("{{ nope() }}").render(&strings(), true)).contains("nope"));
    assert!(reason(ChatTemplate::from_source(&"a".repeat((64 << 10) + 1), "", "")).contains("65537 bytes"));
}

#[test]
fn hostile_templates_end() {
    let fails = |source: &str, found: &str| {
        let reason = reason(compile(source).render(&strings(), true));
        assert!(reason.contains(found), "{reason}");
    };
    fails("{% for a in range(90000) %}{% for b in range(90000) %}{% endfor %}{% endfor %}", "fuel");
    fails("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "recursion");
    fails("{% for a in range(100000) %}{{ 'x' * 1000 }}{% endfor %}", "longer than 4194304 bytes");
    fails("{% include 'chat_template' %}", "");
    fails("{% include '/etc/passwd' %}", "not");
    // Values nested deep must neither overflow the stack when they are printed, nor when they are dropped.
    for (end, bytes) in
        [("", 0), ("{{ ns.x }}", 120_002), ("{{ ns.x | tojson }}", 120_002), ("{{ ns.x == ns.x[0] }}", 5)]
    {
        let nest = "{% set ns = namespace(x=[]) %}{% for i in range(60000) %}{% set ns.x = [ns.x] %}{% endfor %}";
        assert_eq!(render(&format!("{nest}{end}")).len(), bytes);
    }
    // Nor may the compiler overflow it. Whether it refuses these is its own affair.
    let compile = |part: &str, bytes: usize, end: &str| {
        let _ = ChatTemplate::from_source(&format!("{{{{ a {}{end}", part.repeat(bytes / part.len())), "", "");
    };
    for nested in ["+ (", "+ [", "and not ", "+ a(", "+ a[", "if 1 else "] {
        compile(nested, 60_000, "");
        compile(nested, 60_000, "1 }}");
    }
    for chain in ["|e", ".b", "()", "[0]", " is b", " in b", "<1"] {
        compile(chain, 60_000, "}}");
    }
    // minijinja takes quadratic time for these.
    for chain in ["+1", "~1", "**1"] {
        compile(chain, 5_000, "}}");
    }
    for tag in ["{% if x %}", "{% for x in y %}", "{% macro x() %}", "{% filter upper %}", "{% if x %}{% elif x %}"] {
        compile(&format!("}}}}{tag}{{{{ a"), 60_000, "}}");
    }
}

#[test]
fn too_much_text() {
    let long = messages(json!([{ "role": "user", "content": "a".repeat(MAX_TEXT) }]));
    assert!(reason(compile("").render(&long, true)).contains("4194308 bytes"));
}

#[test]
fn odds_and_ends() {
    assert_eq!(render("{{ strftime_now('%Y') | length }}"), "4");
    assert_eq!(render("a\r\n  {% if true %}\r\nb{% endif %}\r\n"), "a\nb");
    assert_eq!(render("{{ messages[9] is defined }}{{ true }}{{ [] | tojson }}"), "FalseTrue[]");
    assert_eq!(render("{{ '\u{e9}\\n' | tojson }}{{ 'x' | tojson(true) }}"), "\"\u{e9}\\n\"\"x\"");
    assert_eq!(render("{% set x = 1 %}{% generation %}{% set x = 2 %}{{ x }}{% endgeneration %}{{ x }}"), "21");
}

#[test]
fn messages_are_checked() {
    for bad in [
        json!({ "role": "user" }),
        json!({ "role": "user", "content": "a", "extra": 1 }),
        json!({ "role": "user", "content": [{ "type": "video" }] }),
        json!({ "role": "user", "content": [{ "type": "image" }] }),
    ] {
        assert!(serde_json::from_value::<Message>(bad).is_err());
    }
    let error = serde_json::from_value::<Message>(json!({ "role": "user", "content": 1 })).unwrap_err();
    assert!(error.to_string().contains("must be a string or a list"), "{error}");
}

/// Each of these took seconds or gigabytes.
#[test]
fn long_lists_are_refused() {
    for source in [
        "{{ [1] * 99999999 }}",
        "{{ [[1] * 99999999] }}",
        "{{ ([1] * 99999999)|list }}",
        "{{ ([1] * 99999999)|tojson }}",
        "{{ messages|slice(99999999) }}",
        "{{ messages|batch(99999999) }}",
        "{% for i in range(9)|slice(99999999) %}{% endfor %}",
    ] {
        let reason = reason(compile(source).render(&strings(), true));
        assert!(reason.contains("a list may have 131072 entries"), "{source}: {reason}");
    }
    assert_eq!(
        render("{{ [1, 2] * 2 }}{{ range(4)|slice(2)|list }}{{ range(3)|batch(2)|tojson }}"),
        "[1, 2, 1, 2][[0, 1], [2, 3]][[0, 1], [2]]"
    );
}
