//! The tables of docs/targets.md and docs/target.schema.json, made of the format itself, so that
//! neither can say what the program doesn't read.

use std::fmt::Write;

use serde_json::Value;

/// Each table of the format with its keys, in Markdown.
pub(super) fn tables(schema: &Value) -> String {
    let mut text = String::new();
    table(&mut text, "The file", "", schema);
    let mut definitions: Vec<_> = schema["$defs"].as_object().into_iter().flatten().collect();
    definitions.sort_by_key(|(name, _)| name.as_str());
    for (name, definition) in definitions {
        let about = definition["description"].as_str().unwrap_or_default();
        if definition["properties"].is_object() {
            table(&mut text, name, about, definition);
        } else if let Some(variants) = definition["oneOf"].as_array() {
            choices(&mut text, name, about, variants);
        } else if let Some(names) = definition["enum"].as_array() {
            let names: Vec<_> = names.iter().map(one).collect();
            let _ = writeln!(
                text,
                "### {name}\n\n{}\n\nOne of {}.\n",
                line(about),
                names.join(", ")
            );
        }
    }
    text
}

fn table(text: &mut String, name: &str, about: &str, schema: &Value) {
    // Writing to a String can't fail.
    let _ = writeln!(text, "### {name}\n");
    if !about.is_empty() {
        let _ = writeln!(text, "{}\n", line(about));
    }
    let required: Vec<_> = (schema["required"].as_array().into_iter().flatten())
        .filter_map(Value::as_str)
        .collect();
    let _ = writeln!(text, "| key | value | what it says |\n|---|---|---|");
    for (key, value) in schema["properties"].as_object().into_iter().flatten() {
        let must = if required.contains(&key.as_str()) {
            " (needed)"
        } else {
            ""
        };
        let about = line(value["description"].as_str().unwrap_or_default());
        let default = match &value["default"] {
            Value::Null => String::new(),
            Value::Array(none) if none.is_empty() => String::new(),
            Value::Object(_) => String::new(),
            Value::String(empty) if empty.is_empty() => String::new(),
            Value::Bool(false) => String::new(),
            default => format!(" Default: `{default}`."),
        };
        let _ = writeln!(
            text,
            "| `{key}`{must} | {} | {about}{default} |",
            kind(value)
        );
    }
    text.push('\n');
}

/// Things of which there are several: each by its name, with what it says and its keys.
fn choices(text: &mut String, name: &str, about: &str, variants: &[Value]) {
    let _ = writeln!(text, "### {name}\n\n{}\n", line(about));
    let _ = writeln!(text, "| name | keys | what it says |\n|---|---|---|");
    for variant in variants {
        let about = line(variant["description"].as_str().unwrap_or_default());
        let own = |value: &Value| value["const"].as_str().map(str::to_owned);
        let mut named = own(variant);
        let mut keys = Vec::new();
        for (key, value) in variant["properties"].as_object().into_iter().flatten() {
            match own(value) {
                Some(name) => named = Some(name),
                None => keys.push(format!("`{key}` {}", kind(value))),
            }
        }
        let names = match (&named, variant["enum"].as_array()) {
            (Some(name), _) => format!("`{name}`"),
            (None, Some(names)) => names.iter().map(one).collect::<Vec<_>>().join(", "),
            (None, None) => kind(variant),
        };
        let _ = writeln!(text, "| {names} | {} | {about} |", keys.join(", "));
    }
    text.push('\n');
}

fn one(value: &Value) -> String {
    format!("`{}`", value.as_str().unwrap_or_default())
}

/// What a value is, in a word or a link.
fn kind(value: &Value) -> String {
    if let Some(name) = value["$ref"]
        .as_str()
        .and_then(|path| path.rsplit('/').next())
    {
        return format!("[{name}](#{})", name.to_lowercase());
    }
    if let Some(several) = value["anyOf"].as_array() {
        let mut kinds: Vec<_> = several
            .iter()
            .map(kind)
            .filter(|it| it != "nothing")
            .collect();
        kinds.dedup();
        return kinds.join(" or ");
    }
    let word = |name: &str| match name {
        "array" => format!("list of {}", kind_of_items(value)),
        "integer" => "number".to_owned(),
        "boolean" => "true or false".to_owned(),
        "null" => "nothing".to_owned(),
        "object" if value["additionalProperties"].is_object() => {
            format!("table of {}", kind(&value["additionalProperties"]))
        }
        "object" => "table".to_owned(),
        other => other.to_owned(),
    };
    match &value["type"] {
        Value::String(one) => word(one),
        Value::Array(several) => {
            let words = several
                .iter()
                .filter_map(Value::as_str)
                .filter(|it| *it != "null");
            words.map(word).collect::<Vec<_>>().join(" or ")
        }
        _ => String::new(),
    }
}

fn kind_of_items(value: &Value) -> String {
    kind(&value["items"])
}

/// One line that a Markdown table takes; links of rustdoc become words.
fn line(about: &str) -> String {
    let line = about.replace('\n', " ").replace('|', "\\|");
    let mut plain = String::new();
    let mut rest = line.as_str();
    while let Some((before, after)) = rest.split_once("[`") {
        plain.push_str(before);
        let Some((name, after)) = after.split_once("`]") else {
            plain.push_str("[`");
            rest = after;
            continue;
        };
        let _ = write!(plain, "`{name}`");
        rest = after;
    }
    plain + rest
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    const FROM: &str =
        "<!-- made of the format by a test; KNOBRIG_WRITE_DOCS=1 writes it anew -->\n";
    const TO: &str = "<!-- end -->\n";

    fn docs(name: &str) -> PathBuf {
        knobrig_images::workspace_root().join("docs").join(name)
    }

    /// What is in docs is what the program reads.
    fn same(name: &str, wanted: &str) {
        let path = docs(name);
        if std::env::var_os("KNOBRIG_WRITE_DOCS").is_some() {
            std::fs::write(&path, wanted).expect("writes");
        }
        let is = std::fs::read_to_string(&path).expect("is there");
        assert!(
            is == wanted,
            "docs/{name} is not what the format says; see its first comment"
        );
    }

    #[test]
    fn the_schema_in_docs_is_the_formats() {
        same("target.schema.json", &crate::target::Target::schema());
    }

    #[test]
    fn the_reference_in_docs_is_the_formats() {
        let text = std::fs::read_to_string(docs("targets.md")).expect("is there");
        let (before, rest) = text.split_once(FROM).expect("where the tables begin");
        let (_, after) = rest.split_once(TO).expect("where they end");
        let tables = tables(&super::super::read::schema());
        same(
            "targets.md",
            &format!("{before}{FROM}\n{tables}{TO}{after}"),
        );
    }
}
