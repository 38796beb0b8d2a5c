//! JSON as block YAML, for configuration that people read on the node.

use serde_json::Value;

/// A document. Texts are in double quotes, which YAML reads as JSON does.
pub(super) fn document(value: &Value) -> String {
    let mut text = String::new();
    block(value, 0, &mut text);
    text
}

fn block(value: &Value, depth: usize, text: &mut String) {
    let indent = "  ".repeat(depth);
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                text.push_str(&indent);
                entry(key, value, depth, text);
            }
        }
        Value::Array(list) => {
            for item in list {
                text.push_str(&indent);
                text.push_str("- ");
                match item {
                    Value::Object(map) if !map.is_empty() => {
                        for (position, (key, value)) in map.iter().enumerate() {
                            if position > 0 {
                                text.push_str(&indent);
                                text.push_str("  ");
                            }
                            entry(key, value, depth + 1, text);
                        }
                    }
                    other => line(other, text),
                }
            }
        }
        other => {
            text.push_str(&indent);
            line(other, text);
        }
    }
}

fn entry(key: &str, value: &Value, depth: usize, text: &mut String) {
    let plain = key.chars().all(|character| character.is_ascii_alphanumeric());
    if plain && !key.is_empty() {
        text.push_str(key);
    } else {
        text.push_str(&Value::from(key).to_string());
    }
    let nested = match value {
        Value::Object(map) => !map.is_empty(),
        Value::Array(list) => !list.is_empty(),
        _ => false,
    };
    if nested {
        text.push_str(":\n");
        block(value, depth + 1, text);
    } else {
        text.push_str(": ");
        line(value, text);
    }
}

/// Scalars and empty collections are the same in JSON.
fn line(value: &Value, text: &mut String) {
    match value {
        // Words without any meaning in YAML need no quotes.
        Value::String(word) if is_plain(word) => text.push_str(word),
        other => text.push_str(&other.to_string()),
    }
    text.push('\n');
}

fn is_plain(word: &str) -> bool {
    word.starts_with(|first: char| first.is_ascii_alphabetic())
        && word.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '/' | '-' | '_'))
        && !["true", "false", "null", "yes", "no", "on", "off", "y", "n"]
            .contains(&word.to_ascii_lowercase().as_str())
}
