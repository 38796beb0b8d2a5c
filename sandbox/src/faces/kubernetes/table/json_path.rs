//! The part of JSONPath that printer columns use: members, indices, `[*]` and filters by equality.

use serde_json::Value;

/// The values a path such as `.status.conditions[?(@.type=="Ready")].status` leads to.
pub(super) fn find<'a>(root: &'a Value, path: &str) -> Vec<&'a Value> {
    let mut places = vec![root];
    let mut rest = path.trim();
    while !rest.is_empty() {
        let (step, tail) = next_step(rest);
        rest = tail;
        places = match step {
            Step::Member(name) if name.is_empty() => places,
            Step::Member(name) => places.into_iter().filter_map(|place| place.get(&name)).collect(),
            Step::Index(index) => places.into_iter().filter_map(|place| place.get(index)).collect(),
            Step::All => places.into_iter().filter_map(Value::as_array).flatten().collect(),
            Step::Where(member, wanted) => places
                .into_iter()
                .filter_map(Value::as_array)
                .flatten()
                .filter(|item| item.get(&member).is_some_and(|value| value == wanted.as_str()))
                .collect(),
            Step::Nothing => Vec::new(),
        };
    }
    places
}

enum Step {
    Member(String),
    Index(usize),
    All,
    Where(String, String),
    Nothing,
}

fn next_step(path: &str) -> (Step, &str) {
    if let Some(inner) = path.strip_prefix('[') {
        let (inside, tail) = inner.split_once(']').unwrap_or((inner, ""));
        return (bracket(inside), tail);
    }
    let path = path.strip_prefix('.').unwrap_or(path);
    let mut name = String::new();
    let mut characters = path.char_indices();
    while let Some((index, character)) = characters.next() {
        match character {
            '\\' => name.extend(characters.next().map(|(_, escaped)| escaped)),
            '.' | '[' => return (Step::Member(name), path.get(index..).unwrap_or_default()),
            other => name.push(other),
        }
    }
    (Step::Member(name), "")
}

fn bracket(inside: &str) -> Step {
    let inside = inside.trim();
    if inside == "*" {
        return Step::All;
    }
    if let Ok(index) = inside.parse() {
        return Step::Index(index);
    }
    let quoted = |text: &str| text.trim().trim_matches(['"', '\'']).to_owned();
    let filter = inside.strip_prefix("?(").and_then(|filter| filter.strip_suffix(')'));
    match filter.and_then(|filter| filter.split_once("==")) {
        Some((member, wanted)) => {
            let member = member.trim().trim_start_matches('@').trim_start_matches('.');
            Step::Where(member.to_owned(), quoted(wanted))
        }
        None if inside.starts_with(['"', '\'']) => Step::Member(quoted(inside)),
        None => Step::Nothing,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn paths_of_karpenters_columns_are_understood() {
        let claim = json!({
            "metadata": {"labels": {"karpenter.sh/capacity-type": "spot"}},
            "status": {"conditions": [{"type": "Launched", "status": "True"}, {"type": "Ready", "status": "False"}]},
        });
        assert_eq!(find(&claim, r".metadata.labels.karpenter\.sh/capacity-type"), ["spot"]);
        assert_eq!(find(&claim, r#".status.conditions[?(@.type=="Ready")].status"#), ["False"]);
        assert_eq!(find(&claim, ".status.conditions[*].status").len(), 2);
        assert_eq!(find(&claim, ".status.conditions[0].type"), ["Launched"]);
        assert!(find(&claim, ".spec.missing[7]").is_empty());
    }
}
