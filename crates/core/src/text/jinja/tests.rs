use serde_json::Value as Json;

use super::*;

/// Cases of the golden that differ from jinja2. `docs/design/templates.md` says why.
const KNOWN: [&str; 2] = ["{{ lipsum is defined }}", "{{ self is defined }}"];

fn value(json: &Json) -> Value {
    match json {
        Json::Null => Value::None,
        Json::Bool(value) => Value::Bool(*value),
        Json::Number(number) => match number.as_i64() {
            Some(value) => Value::Int(value),
            None => Value::Float(number.as_f64().unwrap()),
        },
        Json::String(text) => Value::text(text),
        Json::Array(list) => Value::list(list.iter().map(value).collect()).unwrap(),
        Json::Object(map) => Value::dict(map.iter().map(|(key, item)| (Value::text(key), value(item)))).unwrap(),
    }
}

fn rendered(source: &str, variables: &Json) -> Result<String, String> {
    let variables =
        || Ok(variables.as_object().unwrap().iter().map(|(name, json)| (name.clone(), value(json))).collect());
    let template = Template::compile(source)?;
    template.render(variables, "", 1 << 20, Share::Request).map(|(text, _)| text).map_err(|fail| fail.to_string())
}

/// `tests/golden/jinja.py` renders each with jinja2 as transformers sets it up.
#[test]
fn as_jinja2() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/data/jinja.json");
    let golden: Json = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let cases = golden["cases"].as_array().unwrap();
    assert!(cases.len() > 700);
    let (mut wrong, mut errors) = (Vec::new(), 0);
    for case in cases {
        let source = case["source"].as_str().unwrap();
        let got = rendered(source, &golden["variables"]);
        let same = match (&got, case["rendered"].as_str()) {
            (Ok(got), Some(wanted)) => got == wanted,
            (Err(_), None) => {
                errors += 1;
                true
            }
            _ => false,
        };
        if same == KNOWN.contains(&source) {
            wrong.push(format!("{source}: {case}, got {got:?}"));
        }
    }
    assert!(wrong.is_empty(), "{} differ:\n{}", wrong.len(), wrong.join("\n"));
    assert!(errors > 70, "{errors}");
}

#[test]
fn marks_go_with_their_text() {
    let said = || Value::Text(Text::of("a<b>", Origin::Input));
    for (source, wanted) in [
        ("{{ x }}", vec![0..4]),
        ("<{{ x }}>", vec![1..5]),
        ("{{ x | upper }}{{ x[1:3] }}", vec![0..6]),
        ("{{ x.split('<')[1] ~ '!' ~ x[0] }}", vec![0..2, 3..4]),
        ("{{ '%s-%5s' % (x, x) }}", vec![0..4, 6..10]),
        ("{{ '{}{:>6}'.format(x, x) }}", vec![0..4, 6..10]),
        ("{{ x | tojson }}", vec![1..5]),
        ("{{ [x] }}", vec![2..6]),
        ("{{ x | replace('<', '--') }}", vec![0..1, 3..5]),
        ("{{ x | e }}", vec![0..10]),
        ("{{ x[::-1] }}{% set y %}.{{ x }}{% endset %}{{ y }}", vec![0..4, 5..9]),
        ("{% macro f(v) %}({{ v }}){% endmacro %}{{ f(x) | trim }}", vec![1..5]),
        ("{{ x | list | join('.') }}", vec![0..1, 2..3, 4..5, 6..7]),
        ("{{ x | indent(1, true) | center(9) }}", vec![3..7]),
        ("{{ x | length }}", vec![]),
    ] {
        let template = Template::compile(source).unwrap();
        let (text, marks) = template.render(|| Ok(vec![("x".to_owned(), said())]), "", 99, Share::Request).unwrap();
        let found: Vec<_> = marks.iter().map(|mark| mark.bytes.clone()).collect();
        assert_eq!(found, wanted, "{source}: {text}");
        assert!(marks.iter().all(|mark| mark.origin == Origin::Input));
    }
}
