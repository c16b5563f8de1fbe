//! Chat templates that once hung a load or took all memory: each ends within seconds and within the memory of a small process.

use std::time::{Duration, Instant};

use prefixkv_core::text::{ChatTemplate, Message};
use serde_json::json;

/// Longest time of one template, its probes and a rendering, on a machine that may be busy.
const TIME: Duration = Duration::from_secs(5);
/// Most memory of the whole process, in KiB.
const MEMORY: u64 = 300 << 10;

/// Lists of two lists of two lists, sixty deep: small, until something walks them.
const SHARED: &str = "{% set ns = namespace(x=[1], y=[1]) %}{% for i in range(60) %}\
    {% set ns.x = [ns.x, ns.x] %}{% set ns.y = [ns.y, ns.y] %}{% endfor %}";
const TUPLES: &str =
    "{% set ns = namespace(x=(1,)) %}{% for i in range(60) %}{% set ns.x = (ns.x, ns.x) %}{% endfor %}";
/// Two megabytes of text.
const LONG: &str = "{% set ns = namespace(t='abcdefgh') %}{% for i in range(18) %}{% set ns.t = ns.t ~ ns.t %}{% endfor %}\
    {% set t = ns.t %}";

fn sources() -> Vec<String> {
    let mut sources = Vec::new();
    for end in [
        "ns.x == ns.y",
        "ns.x != ns.y",
        "ns.x < ns.y",
        "ns.x in [ns.y]",
        "[ns.y].index(ns.x)",
        "[ns.y, ns.y].count(ns.x)",
        "[ns.x, ns.y]|sort",
        "[ns.x, ns.y]|unique|list",
        "[ns.x, ns.y]|max",
        "[[ns.x], [ns.y]]|groupby(0)",
        "{ns.x: 1}",
        "ns.x",
        "ns.x|string|length",
        "ns.x|tojson",
        "'%s' % [ns.x]",
        "'{}'.format(ns.x)",
        "ns.x|pprint",
        "[ns.x]|join",
        "ns.x is sameas ns.y",
        "ns.x is eq ns.y",
        "[ns.x]|select('eq', ns.y)|list",
        "dict([(1, ns.x)]) == dict([(1, ns.y)])",
    ] {
        sources.push(format!("{SHARED}{{{{ {end} }}}}"));
    }
    for end in ["{ns.x: 1}", "[ns.x, ns.x]|unique|list", "ns.x == (ns.x[0], ns.x[1])", "{1: 2}.get(ns.x)"] {
        sources.push(format!("{TUPLES}{{{{ {end} }}}}"));
    }
    for step in [
        "t|upper",
        "t|lower",
        "t|title",
        "t|capitalize",
        "t.swapcase()",
        "t|replace('a','b')",
        "t|reverse",
        "t|length",
        "t == t ~ ''",
        "'zz' in t",
        "t|tojson",
        "[t]",
        "t.split('a')",
        "t.split()",
        "t.rsplit(none)",
        "t|wordwrap(3)",
        "t|wordcount",
        "t.count('a')",
        "t.strip('abcdefgh')",
        "t|trim(t)",
        "t|urlencode",
        "t[::2]",
        "t[99:]",
        "t[5]",
        "t|indent",
        "t.splitlines()",
        "t.find('z')",
        "t|list",
        "t|escape",
        "t|striptags",
        "t|replace('a','<')|striptags",
        "'%s'|format(t)",
        "t.format(1)",
        "t % 1",
        "t|unique|list",
        "t|sort",
        "t.startswith(t)",
        "t.center(3000000)",
        "t.zfill(3000000)",
        "t|first",
        "t|int",
        "t|float",
        "t.partition('z')",
        "t.expandtabs()",
        "t|map('upper')|join",
        "t|truncate(9)",
        "t.encode()",
        "t.isalnum()",
        "{t: 1}",
        "{}[t]",
        "t|batch(2)|list",
        "t|slice(2)|list",
        "t|select('string')|list",
        "t is upper",
        "strftime_now(t)",
    ] {
        sources.push(format!("{LONG}{{% for i in range(90000) %}}{{% set q = {step} %}}{{% endfor %}}"));
    }
    for double in [
        "ns.t ~ ns.t",
        "ns.t + ns.t",
        "[ns.t, ns.t]|join",
        "ns.t.join([ns.t, ns.t])",
        "'%s%s'|format(ns.t, ns.t)",
        "'%s%s' % (ns.t, ns.t)",
        "'{}{}'.format(ns.t, ns.t)",
        "ns.t.replace('a', 'aa')",
        "ns.t|replace('a', 'aa')",
        "ns.t * 2",
        "f(ns.t)",
        "ns.t|tojson|tojson",
        "ns.t.center(2 * ns.t|length)",
        "ns.t|urlencode|replace('a', '%')",
        "ns.t|string ~ [ns.t]",
    ] {
        sources.push(format!(
            "{{% macro f(x) %}}{{{{ x }}}}{{{{ x }}}}{{% endmacro %}}{{% set ns = namespace(t='a\"') %}}\
             {{% for i in range(99) %}}{{% set ns.t = {double} %}}{{% endfor %}}{{{{ ns.t|length }}}}"
        ));
    }
    for whole in [
        "{{ '%2000000000d'|format(1) }}",
        "{{ '%2000000000s' % 'a' }}",
        "{{ '%.2000000000f' % 1.5 }}",
        "{{ '%.2000000000d' % 1 }}",
        "{{ '%*d' % (2000000000, 1) }}",
        "{{ '{:>2000000000}'.format(1) }}",
        "{{ '{:.2000000000f}'.format(1.5) }}",
        "{{ '{:02000000000,}'.format(1) }}",
        "{{ '{:{w}}'.format(1, w=2000000000) }}",
        "{{ 'a\nb'|indent(2000000000) }}",
        "{{ 'a'.center(2000000000) }}",
        "{{ 'a'.ljust(2000000000) }}",
        "{{ 'a'|center(2000000000) }}",
        "{{ 'a'.zfill(2000000000) }}",
        "{{ '\t'.expandtabs(2000000000) }}",
        "{{ 'a' * 2000000000 }}",
        "{{ [1] * 2000000000 }}",
        "{{ (1,) * 2000000000 }}",
        "{{ 2000000000 * 'a' }}",
        "{{ 9 ** 9 ** 9 ** 9 }}",
        "{{ 9.0 ** 9 ** 9 }}",
        "{{ [1]|batch(2000000000, 'x')|list }}",
        "{{ [1]|slice(2000000000)|list }}",
        "{{ range(2000000000) }}",
        "{{ [1]|tojson(indent=2000000000) }}",
        "{{ ('a' * 1000000).join('b' * 100000) }}",
        "{{ range(99999)|join('a' * 1000000) }}",
        "{{ ('a' * 2000000).replace('', 'b' * 1000000) }}",
        "{{ raise_exception('x' * 30000000) }}",
        "{{ ('<' * 2000000)|striptags }}",
        "{{ ('<!--' * 500000)|striptags }}",
        "{{ ('%' * 2000000) % 1 }}",
        "{{ ('{' * 2000000).format(1) }}",
        "{{ ('{}' * 1000000).format(1) }}",
        "{{ 1.5|round(2000000000) }}",
        "{% set x %}{% for i in range(99999) %}{{ 'x' * 1000 }}{% endfor %}{% endset %}",
        "{% for i in range(99999) %}{{ 'x' * 1000 }}{% endfor %}",
        "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
        "{% for a in range(99999) if a < 0 %}{% endfor %}{% for a in range(99999) if range(99999)|list|sum < 0 %}{% endfor %}",
        "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
        "{% macro f(x) %}{% if x %}{{ f(x - 1) }}{{ f(x - 1) }}{% endif %}{% endmacro %}{{ f(60) }}",
        "{% macro f(x) %}{{ f([x, x]) }}{% endmacro %}{{ f(1) }}",
        "{% macro f() %}{{ caller() }}{{ caller() }}{% endmacro %}{% macro g() %}{% call f() %}{{ g() }}{% endcall %}{% endmacro %}{{ g() }}",
        "{% for x in [1] recursive %}{{ loop([1]) }}{% endfor %}",
        "{% for x in [1, 1] recursive %}{{ loop([1, 1]) }}{% endfor %}",
        "{% for i in range(99999) %}{% macro f() %}{{ i }}{% endmacro %}{% set g = f %}{% endfor %}",
        "{% for i in range(99999) %}{% for j in range(99) %}{% set q = namespace(a=1) %}{% endfor %}{% endfor %}",
        "{% set ns = namespace(t={}) %}{% for i in range(99999) %}{% set ns.t = dict(ns.t, **{'k' ~ i: i}) %}{% endfor %}",
        "{% set ns = namespace(t=[]) %}{% for i in range(99999) %}{% set ns.t = ns.t + [[1] * 100000] %}{% endfor %}",
        "{% set ns = namespace(t=[]) %}{% for i in range(99999) %}{% set ns.t = ns.t + ns.t + [1] %}{% endfor %}",
        "{% set ns = namespace(x=[]) %}{% for i in range(99999) %}{% set ns.x = [ns.x] %}{% endfor %}{{ ns.x }}",
        "{% set ns = namespace() %}{% for i in range(99999) %}{% set ns.x = namespace(x=ns.x) %}{% endfor %}{{ ns.x }}",
        "{% set ns = namespace() %}{% set ns.x = ns %}{{ ns.x.x == ns }}{{ [ns]|unique|list }}",
        "{% for c in 'a' * 8000000 %}{% endfor %}",
        "{% set t = '<image>a' * 3000000 %}{{ t|length }}",
        "{% set k = 'a' * 1000000 %}{% for i in range(9000) %}{% set q = {k ~ i: 1} %}{% endfor %}",
        "{% set k = 'a' * 1000000 %}{% for i in range(99999) %}{% set q = {}[k] %}{% set r = {}.get(k) %}{% endfor %}",
        "{% for i in range(99999) %}{% set q = range(99999)|list %}{% endfor %}",
        "{% for i in range(99999) %}{% set q = range(99999)|sort|first %}{% endfor %}",
        "{% for i in range(99999) %}{% set q = range(99999)|map('string')|join %}{% endfor %}",
        "{% for i in range(99999) %}{% set q = 99998 in range(99999) %}{% endfor %}",
        "{% for i in range(99999) %}{% set q = range(99999)|sum %}{% endfor %}",
        "{% set f = '{}' * 100000 %}{% for i in range(99999) %}{% set q = f.format(*range(99999)) %}{% endfor %}",
    ] {
        sources.push(whole.to_owned());
    }
    sources
}

fn high_water() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?.trim().strip_suffix(" kB")?.trim().parse().ok()
}

/// One test, so that nothing else counts to the memory of the process.
#[test]
fn every_template_ends_in_time_and_memory() {
    let messages = json!([{ "role": "user", "content": "Hi" }, { "role": "assistant", "content": "Hello" }]);
    let messages: Vec<Message> = serde_json::from_value(messages).expect("messages");
    let sources = sources();
    assert!(sources.len() > 150);
    for source in sources {
        let started = Instant::now();
        match ChatTemplate::from_source(&source, "<s>", "</s>") {
            Ok(template) => {
                if let Err(error) = template.render(&messages, true) {
                    assert_eq!(error.code(), "prompt", "{source}: {error}");
                    assert!(error.to_string().len() < 9000, "{source}");
                }
            }
            Err(error) => assert_eq!(error.code(), "prompt", "{source}: {error}"),
        }
        assert!(started.elapsed() < TIME, "{source}: {:?}", started.elapsed());
        if let Some(memory) = high_water() {
            assert!(memory < MEMORY, "{source}: {} MiB", memory >> 10);
        }
    }
}
