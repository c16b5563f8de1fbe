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
    compile(source).render(&strings(), true).unwrap().text
}

fn reason(result: Result<impl std::fmt::Debug>) -> String {
    match result.unwrap_err() {
        Error::Prompt { reason } => reason,
        other => panic!("{other:?}"),
    }
}

/// The form of Qwen2.5's own template, shortened. The expected text is what transformers 5.23 renders.
const TOOLS: &str = "{%- if tools %}<tools>{% for tool in tools %}\n{{ tool | tojson }}{% endfor %}\n</tools>\n{% endif %}{% for message in messages %}<|{{ message.role }}|>{{ message.content }}{% if message.tool_calls %}{% for call in message.tool_calls %}\n<tool_call>\n{\"name\": \"{{ call.function.name }}\", \"arguments\": {{ call.function.arguments | tojson }}}\n</tool_call>{% endfor %}{% endif %}\n{% endfor %}";

#[test]
fn tools_and_their_calls() {
    let template = compile(TOOLS);
    let tool = json!({ "type": "function", "function": { "name": "look", "parameters": { "b": [1, 2.5, null, true], "a": "</s>" } } });
    let said = messages(json!([
        { "role": "user", "content": "Hi" },
        { "role": "assistant", "content": "", "toolCalls": [{ "name": "look", "arguments": { "at": "<s>", "n": 3 } }] },
        { "role": "tool", "content": "a cat" },
    ]));
    let rendered = template.with_tools(&[tool]).unwrap().render(&said, true).unwrap();
    assert_eq!(
        rendered.text,
        "<tools>{\"type\": \"function\", \"function\": {\"name\": \"look\", \"parameters\": {\"b\": [1, 2.5, null, true], \"a\": \"</s>\"}}}</tools>\n\
         <|user|>Hi<|assistant|><tool_call>\n{\"name\": \"look\", \"arguments\": {\"at\": \"<s>\", \"n\": 3}}\n</tool_call><|tool|>a cat"
    );
    // Special tokens that tools and calls spell are text of the caller.
    for spelled in ["</s>", "<s>"] {
        let at = rendered.text.find(spelled).unwrap();
        assert!(rendered.said.iter().any(|said| said.start <= at && at + spelled.len() <= said.end), "{spelled}");
    }
    // Without tools nothing of them is written, and templates that know none, or another form of calls, are refused.
    assert_eq!(template.render(&said[..1], true).unwrap().text, "<|user|>Hi");
    let none = reason(compile(LLAVA).with_tools(&[json!({})]));
    assert_eq!(none, "the chat template of this model knows no tools");
    let other = compile(&TOOLS.replace("{\"name\": \"", "<function="));
    assert!(reason(other.with_tools(&[json!({})])).contains("of a form that is not read here"));
}

/// Each expected text is what transformers 5.23 renders.
#[test]
fn as_transformers() {
    let llava = compile(LLAVA);
    assert_eq!(
        llava.render(&conversation(), true).unwrap().text,
        "USER: <image>\n<image>\nWhat is this? ASSISTANT: A cat. USER: Sure?\u{0} \u{e9} ASSISTANT:"
    );
    assert_eq!(
        llava.render(&conversation(), false).unwrap().text,
        "USER: <image>\n<image>\nWhat is this? ASSISTANT: A cat. USER: Sure?\u{0} \u{e9} "
    );

    let tiny = ChatTemplate::from_folder(&tiny_llava_dir(), &tiny_llava(), Some("<image>")).unwrap();
    assert!(!tiny.is_fallback());
    assert_eq!(
        tiny.render(&conversation(), true).unwrap().text,
        "USER: <image>\n<image>\nWhat is this? ASSISTANT: A cat.</s>USER: Sure?\u{0} \u{e9} ASSISTANT:"
    );
    assert_eq!(
        tiny.render(&strings(), true).unwrap().text,
        " Be brief.</s>USER: Hi   ASSISTANT: Hello</s>USER: x <b> \"q\" ASSISTANT:"
    );

    let dialect = compile(include_str!("tests/dialect.jinja"));
    assert_eq!(
        dialect.render(&strings(), true).unwrap().text,
        "<s><|USER|> Hi,\n[role=user][content=Hi  ]\n<|ASSISTANT|> Hello,\n[role=assistant][content=HeLLo]\n<|USER|> \"Q\"\n[role=user][content=x <b> \"q\"]\n<i>Be brief.</i><n>3</n> True Noneok[{\"role\": \"user\", \"content\": \"Hi  \"}, {\"role\": \"assistant\", \"content\": \"Hello\"}, {\"role\": \"user\", \"content\": \"x <b> \\\"q\\\"\"}]\n{\n  \"b\": [\n    1,\n    2.5,\n    true,\n    null\n  ],\n  \"a\": {}\n}\n{\"a\":[],\"b\":\"\\u00e9<>&\"}\nx1y3cba q+rkept Assistant:fix 2 z \u{c9} True dflt True None"
    );
    assert_eq!(
        dialect.render(&strings()[1..], false).unwrap().text,
        "<s><|USER|> Hi,\n[role=user][content=Hi  ]\n<|ASSISTANT|> Hello,\n[role=assistant][content=HeLLo]\n<|USER|> \"Q\"\n[role=user][content=x <b> \"q\"]\n<i></i><n>3</n> True Noneok[{\"role\": \"user\", \"content\": \"Hi  \"}, {\"role\": \"assistant\", \"content\": \"Hello\"}, {\"role\": \"user\", \"content\": \"x <b> \\\"q\\\"\"}]\n{\n  \"b\": [\n    1,\n    2.5,\n    true,\n    null\n  ],\n  \"a\": {}\n}\n{\"a\":[],\"b\":\"\\u00e9<>&\"}\nx1y3cba q+rkept fix 2 z \u{c9} True dflt True None"
    );
}

#[test]
fn content_takes_the_form_the_template_knows() {
    // transformers loses the text here, as the template looks for parts only.
    let llava = compile(LLAVA);
    assert_eq!(llava.shape, Shape::Lists);
    assert_eq!(llava.render(&strings()[1..2], true).unwrap().text, "USER: Hi   ASSISTANT:");

    for source in [
        "{% for m in messages %}{{ m.role + ':' + m.content }}{% endfor %}",
        "{% for m in messages %}{{ m.role }}:{{ m.content }}{% endfor %}",
    ] {
        let plain = compile(source);
        assert_eq!(plain.shape, Shape::Strings);
        assert_eq!(plain.render(&conversation()[..1], true).unwrap().text, "user:<image>\n<image>\nWhat is this?");
    }
    assert_eq!(compile(super::source::FALLBACK).shape, Shape::Either);
    assert_eq!(compile("nothing").shape, Shape::Either);
}

#[test]
fn fallback() {
    let dir = tempfile::tempdir().unwrap();
    let template = ChatTemplate::from_folder(dir.path(), &tiny_llava(), Some("<image>")).unwrap();
    assert!(template.is_fallback());
    assert_eq!(
        template.render(&conversation(), true).unwrap().text,
        "USER: <image>\n<image>\nWhat is this? ASSISTANT: A cat.</s>USER: Sure?\0 \u{e9} ASSISTANT:"
    );
    assert_eq!(
        template.render(&strings(), false).unwrap().text,
        "Be brief. USER: Hi   ASSISTANT: Hello</s>USER: x <b> \"q\" ASSISTANT:"
    );
    assert_eq!(template.render(&[], true).unwrap().text, "");
    let swapped = [strings()[1].clone(), strings()[0].clone()];
    assert_eq!(reason(template.render(&swapped, true)), "a system message must come first");
    let tool = messages(json!([{ "role": "tool", "content": "" }]));
    assert_eq!(reason(template.render(&tool, true)), "unknown role `tool`; use system, user or assistant");
}

#[test]
fn files_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
    let load = |vision: bool| {
        ChatTemplate::from_folder(dir.path(), &tiny_llava(), vision.then_some("<image>"))
            .map(|template| template.render(&strings(), true).unwrap().text)
    };
    let both = || (load(true).unwrap(), load(false).unwrap());
    let of = |vision: &str, text: &str| (vision.to_owned(), text.to_owned());

    let named = json!({ "chat_template": [
        { "name": "tool_use", "template": "tools" }, { "name": "default", "template": "tokenizer {{ bos_token }}" } ] });
    write("tokenizer_config.json", &named.to_string());
    let config = "tokenizer <s>";
    assert_eq!(both(), of(config, config));
    let named = json!({ "chat_template": { "default": "tokenizer {{ bos_token }}", "rag": "" } });
    write("tokenizer_config.json", &named.to_string());
    assert_eq!(both(), of(config, config));
    std::fs::create_dir(dir.path().join("additional_chat_templates")).unwrap();
    write("additional_chat_templates/rag.jinja", "rag");
    assert_eq!(both(), of(config, config));
    write("additional_chat_templates/default.jinja", "additional");
    assert_eq!(both(), of("additional", "additional"));
    write("chat_template.jinja", "jinja\n");
    assert_eq!(both(), of("jinja", "additional"));
    std::fs::remove_file(dir.path().join("additional_chat_templates/default.jinja")).unwrap();
    assert_eq!(both(), of("jinja", "jinja"));
    write("chat_template.json", r#"{ "chat_template": "json" }"#);
    assert_eq!(both(), of("json", "jinja"));
    write("processor_config.json", r#"{ "chat_template": "processor" }"#);
    assert_eq!(both(), of("processor", "jinja"));
    write("processor_config.json", r#"{ "chat_template": null, "image_token": "<image>" }"#);
    assert_eq!(both(), of("json", "jinja"));

    write("chat_template.jinja", "{% if %}");
    let error = load(false).unwrap_err();
    assert_eq!(error.code(), "model-file");
    assert!(error.to_string().contains("chat_template.jinja") && error.to_string().contains("syntax"), "{error}");
    std::fs::remove_file(dir.path().join("chat_template.jinja")).unwrap();
    for broken in ["{", r#"{ "chat_template": 1 }"#, r#"{ "chat_template": [{ "name": "rag", "template": "" }] }"#] {
        write("chat_template.json", broken);
        assert_eq!(load(true).unwrap_err().code(), "model-file");
    }
}

#[test]
fn failures_are_prompt_errors() {
    let raised = compile("{% if messages | length > 1 %}{{ raise_exception('roles must alternate') }}{% endif %}");
    assert_eq!(reason(raised.render(&strings(), true)), "roles must alternate");
    let in_macro = compile("{% macro f() %}{{ raise_exception('deep ' ~ 1) }}{% endmacro %}{{ f() }}");
    assert_eq!(reason(in_macro.render(&strings(), true)), "deep 1");
    assert!(reason(ChatTemplate::from_source("{{ a", "", "")).contains("syntax error"));
    assert!(reason(compile("{{ messages.nope.deeper }}").render(&strings(), true)).contains("no attribute 'nope'"));
    assert!(reason(compile("{{ nope() }}").render(&strings(), true)).contains("nope"));
    assert!(reason(ChatTemplate::from_source(&"a".repeat((64 << 10) + 1), "", "")).contains("65537 bytes"));
}

#[test]
fn hostile_templates_end() {
    let fails = |source: &str, found: &str| {
        let reason = reason(compile(source).render(&strings(), true));
        assert!(reason.contains(found), "{reason}");
    };
    fails("{% for a in range(90000) %}{% for b in range(90000) %}{% endfor %}{% endfor %}", "it takes too");
    fails("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "recursion");
    fails("{% for a in range(100000) %}{{ 'x' * 1000 }}{% endfor %}", "longer than 4194304 bytes");
    fails("{% include 'chat_template' %}", "cannot load other templates");
    fails("{% include '/etc/passwd' %}", "cannot load other templates");
    fails(
        "{% set ns = namespace(x=[]) %}{% for i in range(200) %}{% set ns.x = [ns.x] %}{% endfor %}",
        "nested 128 deep",
    );
    // The compiler may not overflow its stack. Whether it refuses these is its own affair.
    let compile = |part: &str, bytes: usize, end: &str| {
        let _ = ChatTemplate::from_source(&format!("{{{{ a {}{end}", part.repeat(bytes / part.len())), "", "");
    };
    for nested in ["+ (", "+ [", "and not ", "+ a(", "+ a[", "if 1 else ", "+ -", "+ {1:", "+ 'a' is in "] {
        compile(nested, 60_000, "");
        compile(nested, 60_000, "1 }}");
    }
    for chain in ["|e", ".b", "()", "[0]", " is b", " in b", "<1", "+1", "~1", "**1", " or b", " if b", "|d(1)"] {
        compile(chain, 60_000, "}}");
    }
    for tag in [
        "{% if x %}",
        "{% for x in y %}",
        "{% macro x() %}",
        "{% filter upper %}",
        "{% if x %}{% elif x %}",
        "{% call f() %}",
    ] {
        compile(&format!("}}}}{tag}{{{{ a"), 60_000, "}}");
    }
}

/// The deepest of everything, on a quarter of the stack that they have.
#[test]
fn the_deepest_templates_fit_the_stack() {
    use super::super::jinja::{Share, Template};
    let nested = |open: &str, inner: &str, close: &str, times: usize| {
        format!("{}{inner}{}", open.repeat(times), close.repeat(times))
    };
    let mut sources = Vec::new();
    for times in [60, 190, 380] {
        sources.push(format!("{{{{ {} }}}}", nested("(", "1", ")", times)));
        sources.push(format!("{{{{ {} }}}}", nested("[", "1", "]", times.min(120))));
        sources.push(format!("{{{{ {} }}}}", nested("not ", "1", "", times)));
        sources.push(format!("{{{{ 1{} }}}}", "+1".repeat(times)));
        sources.push(format!("{{{{ 'a'{} }}}}", "|upper".repeat(times)));
        sources.push(nested("{% if true %}", "x", "{% endif %}", times));
        sources.push(nested("{% for i in [1] %}", "x", "{% endfor %}", times));
        sources.push(nested("{% filter upper %}", "x", "{% endfilter %}", times));
    }
    for body in [
        "{{ f(x) }}",
        "{% if true %}{% for i in [1] %}{{ [f((x))]|join }}{% endfor %}{% endif %}",
        "{% filter upper %}{{ f(x) ~ 'a' }}{% endfilter %}",
        "{% call f(x) %}{{ f(x) }}{% endcall %}",
    ] {
        sources.push(format!("{{% macro f(x) %}}{body}{{% endmacro %}}{{{{ f(1) }}}}"));
    }
    sources.push("{% for x in [1] recursive %}{{ loop([1]) }}{% endfor %}".to_owned());
    sources.push("{% set ns = namespace(x=[]) %}{% for i in range(127) %}{% set ns.x = [ns.x] %}{% endfor %}{{ ns.x }}{{ ns.x|tojson }}{{ ns.x == [ns.x] }}".to_owned());
    sources.push("{% set ns = namespace(x=()) %}{% for i in range(127) %}{% set ns.x = (ns.x,) %}{% endfor %}{{ {ns.x: 1} }}{{ [ns.x, ns.x]|unique|list }}".to_owned());
    for source in sources {
        let thread = std::thread::Builder::new().stack_size(thread::STACK / 4).spawn(move || {
            let compiled = Template::compile(&source);
            compiled.map(|template| template.render(|| Ok(Vec::new()), "", 1 << 20, Share::Request).is_ok())
        });
        let _ = thread.unwrap().join().expect("no panic");
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
        "{{ messages|slice(99999999) }}",
        "{{ messages|batch(99999999, 0)|list }}",
        "{% for i in range(9)|slice(99999999) %}{% endfor %}",
    ] {
        let reason = reason(compile(source).render(&strings(), true));
        assert!(reason.contains("MiB of memory") || reason.contains("it takes too"), "{source}: {reason}");
    }
    assert_eq!(
        render("{{ [1, 2] * 2 }}{{ range(4)|slice(2)|list }}{{ range(3)|batch(2)|list|tojson }}"),
        "[1, 2, 1, 2][[0, 1], [2, 3]][[0, 1], [2]]"
    );
}

const PARTS: &str = "{% for m in messages %}{{ m.role }}:{% for p in m.content %}\
    {{ '<image>' if p.type == 'image' else p.text }}{% endfor %};{% endfor %}";

fn places(source: &str, conversation: serde_json::Value) -> Vec<(usize, String)> {
    let template = ChatTemplate::from_source(source, "<s>", "</s>").unwrap();
    let Rendered { text, pictures, .. } = template.render(&messages(conversation), true).unwrap();
    pictures.into_iter().map(|range| (range.start, text[range].to_owned())).collect()
}

fn image(index: usize) -> serde_json::Value {
    json!({ "type": "image", "index": index })
}

fn text(text: &str) -> serde_json::Value {
    json!({ "type": "text", "text": text })
}

/// Texts that spell the placeholder beside images, through templates that trim, split, test, rewrite and mention it.
#[test]
fn text_is_never_an_image() {
    let spelled = json!([
        { "role": "system", "content": [text("<image> is a tag")] },
        { "role": "user", "content": [text(" <image>"), image(0), text("<image> <image>"), image(1), text("<ima")] },
        { "role": "assistant", "content": [text("ge><image>")] },
        { "role": "user", "content": [text("<image>")] },
    ]);
    let found = places(PARTS, spelled.clone());
    assert_eq!(found, [(37, "<image>".to_owned()), (59, "<image>".to_owned())]);
    let part = "{{ ('<image>' if p.type == 'image' else p.text) FILTER }}";
    for filter in
        ["", "| trim", "| replace('a', 'a')", "~ ''", "| string", "| list | join", "[:]", "| indent", "| safe"]
    {
        let source = PARTS.replace("{{ '<image>' if p.type == 'image' else p.text }}", &part.replace("FILTER", filter));
        assert_eq!(places(&source, spelled.clone()).len(), 2, "{filter}");
    }
    // Of a template's own words that name the placeholder, none is an image; nor what a text completes.
    for own in [
        "Images are written <image>.",
        "{{ '<image>' ~ '!' }}",
        "{% set tag = '<image>' %}{{ tag }}{{ tag }}",
        "{% for m in messages %}{% if '<image>' in m.content|string %}{{ '<image>' }}{% endif %}{% endfor %}",
    ] {
        for source in [format!("{own}{PARTS}"), format!("{PARTS}{own}"), format!("{own}{PARTS}{own}")] {
            assert_eq!(places(&source, spelled.clone()).len(), 2, "{source}");
            assert_eq!(places(&source, json!([{ "role": "user", "content": "<image>" }])), []);
            let twice = json!([{ "role": "user", "content": [image(0), image(0)] }]);
            assert_eq!(places(&source, twice).len(), 2, "{source}");
        }
    }
    let half = PARTS.replace("p.text", "'<' ~ p.text");
    assert_eq!(
        places(&half, json!([{ "role": "user", "content": [image(0), text("image>")] }])),
        [(5, "<image>".into())]
    );
    // In one variable for both uses, where it is written tells.
    let variable = format!("{{% set tag = '<image>' %}}{{{{ tag }}}} {}", PARTS.replace("'<image>'", "tag"));
    assert_eq!(places(&variable, spelled).len(), 2);
}

#[test]
fn images_of_templates_for_strings_survive_what_is_done_to_the_string() {
    let conversation = json!([
        { "role": "user", "content": [image(0), text("A <image> b"), image(1)] },
        { "role": "assistant", "content": "<image>" },
        { "role": "user", "content": [text("c"), image(0)] },
    ]);
    for (filter, written) in [
        ("", "<image>"),
        ("| trim", "<image>"),
        ("| upper", "<IMAGE>"),
        (".split('\n') | join('|')", "<image>"),
        (".strip().replace('A', 'x')", "<image>"),
        ("[:]", "<image>"),
        ("| title", "<Image>"),
        ("~ ''", "<image>"),
        (".split('>') | join('>')", "<image"),
        ("| e", "&lt;image&gt;"),
    ] {
        let source = format!("{{% for m in messages %}}{{{{ m.role + ': ' + (m.content {filter}) }}}}\n{{% endfor %}}");
        let found: Vec<String> = places(&source, conversation.clone()).into_iter().map(|(_, text)| text).collect();
        assert_eq!(found, [written; 3], "{filter}");
    }
    let fails = |source: &str| {
        let template = ChatTemplate::from_source(source, "", "").unwrap();
        reason(template.render(&messages(conversation.clone()), true))
    };
    let lost = fails("{% for m in messages %}{{ m.content + '' if loop.first else 'x' }}{% endfor %}");
    assert!(lost.contains("writes 2 of the 3 images"), "{lost}");
    let twice = fails("{% for m in messages %}{{ m.content + '-' + m.content }}{% endfor %}");
    assert!(twice.contains("each must come once, in order"), "{twice}");
    let mute = fails("{% for m in messages %}{% for p in m.content %}{{ p.text }}{% endfor %}{% endfor %}");
    assert!(mute.contains("writes 0 image placeholders (`<image>`) for the 3 images"), "{mute}");
}

/// transformers looks at no more than their number, so a template may write them for other reasons.
#[test]
fn as_many_placeholders_as_images_are_images() {
    let one = json!([{ "role": "user", "content": [image(0), text("What?")] }]);
    for source in [
        "{% for m in messages %}{{ '%d. %s: ' % (loop.index, m.role) }}<image>{% endfor %}",
        "{%- if tools is iterable and tools | length > 0 %}TOOLS{%- endif %}\
         {% for m in messages %}{{ '<image>' if m.content is not string }}{{ m.role }}: {% endfor %}",
    ] {
        assert_eq!(places(source, one.clone()).len(), 1, "{source}");
    }
}

#[test]
fn named_tokens_are_variables() {
    let special =
        [("pad_token", "<pad>"), ("image_token", "<image>")].map(|(name, token)| (name.to_owned(), token.to_owned()));
    let source = "{{ pad_token }}|{{ unk_token }}|{% for m in messages %}{% for c in m.content %}\
        {{ image_token if c.type == 'image' else c.text }}{% endfor %}{% endfor %}";
    let template = ChatTemplate::compile(source, special.to_vec(), Some("<image>")).unwrap();
    let conversation = messages(json!([{ "role": "user", "content": [image(0), text("What?")] }]));
    let rendered = template.render(&conversation, true).unwrap();
    assert_eq!((rendered.text.as_str(), rendered.pictures), ("<pad>||<image>What?", vec![7..14]));
}

/// Videos have a placeholder of their own, which a text does not become either.
#[test]
fn videos_stand_beside_images_and_text() {
    let source = "{% for m in messages %}{% for p in m.content %}{% if p.type == 'text' %}{{ p.text }}{% else %}<{{ p.type }}>{% endif %}{% endfor %}\
        {% endfor %} a <video>";
    let source = source.replace("<{{ p.type }}>", "{{ '<image>' if p.type == 'image' else '<video>' }}");
    let video = json!({ "type": "video", "index": 0 });
    let conversation =
        json!([{ "role": "user", "content": [text("<video>"), video, image(0), text("<image>"), video] }]);
    let template = ChatTemplate::from_source(&source, "<s>", "</s>").unwrap();
    let refused = template.render(&messages(conversation.clone()), false).unwrap_err();
    assert!(refused.to_string().contains("no videos"), "{refused}");
    let template = template.with_videos("<video>".into(), None).unwrap();
    let Rendered { text: found, pictures, .. } = template.render(&messages(conversation.clone()), false).unwrap();
    assert_eq!(found, "<video><video><image><image><video> a <video>");
    assert_eq!(pictures, [7..14, 14..21, 28..35]);
    // Without videos nothing has changed.
    let still = json!([{ "role": "user", "content": [image(0)] }]);
    assert_eq!(template.render(&messages(still), false).unwrap().pictures, [0..7]);
    // A template of its own, and one that knows no videos.
    let own = template.clone().with_videos(
        "<film>".into(),
        Some(
            "{% for m in messages %}{% for p in m.content %}\
        {% if p.type == 'video' %}<film>{% elif p.type == 'image' %}<image>{% endif %}{% endfor %}{% endfor %}",
        ),
    );
    let Rendered { text: found, pictures, .. } = own.unwrap().render(&messages(conversation.clone()), false).unwrap();
    assert_eq!((found.as_str(), pictures), ("<film><image><film>", vec![0..6, 6..13, 13..19]));
    let blind = ChatTemplate::from_source(PARTS, "<s>", "</s>").unwrap().with_videos("<video>".into(), None).unwrap();
    let refused = blind
        .render(&messages(json!([{ "role": "user", "content": [json!({ "type": "video", "index": 0 })] }])), false);
    let refused = refused.unwrap_err().to_string();
    assert!(refused.contains("writes 0 video placeholders (`<video>`) for the 1 videos"), "{refused}");
    // A template that takes strings gets them put into these.
    let strings = "{% for m in messages %}{{ m.role + ': ' + m.content }}{% endfor %}";
    let strings =
        ChatTemplate::from_source(strings, "<s>", "</s>").unwrap().with_videos("<video>".into(), None).unwrap();
    let Rendered { text: found, pictures, .. } = strings.render(&messages(conversation), false).unwrap();
    assert_eq!(found, "user: <video>\n<image>\n<video>\n<video><image>");
    assert_eq!(pictures, [6..13, 14..21, 22..29]);
}
