//! Label and field selectors.

use serde_json::Value;

use crate::world::failure::{ApiFailure, ApiResult};
use crate::world::object;

/// Label and field selector of a list or watch; the default selects everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selector {
    labels: Vec<LabelTerm>,
    fields: Vec<FieldTerm>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct LabelTerm {
    key: String,
    operator: Operator,
    values: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operator {
    In,
    NotIn,
    Exists,
    Absent,
    Greater,
    Less,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct FieldTerm {
    path: String,
    equal: bool,
    value: String,
}

impl Selector {
    /// Reads the query parameters `labelSelector` and `fieldSelector`.
    ///
    /// # Errors
    /// 400 with the part that cannot be read.
    pub fn parse(labels: &str, fields: &str) -> ApiResult<Self> {
        Ok(Self { labels: parse_labels(labels)?, fields: parse_fields(fields)? })
    }

    /// Reads a `metav1.LabelSelector` (`matchLabels`, `matchExpressions`); `null` selects nothing
    /// and gives `None`.
    pub fn from_label_selector(selector: Option<&Value>) -> Option<Self> {
        let selector = selector.filter(|selector| !selector.is_null())?;
        let mut labels = Vec::new();
        for (key, value) in
            selector.get("matchLabels").and_then(Value::as_object).into_iter().flatten()
        {
            labels.push(LabelTerm {
                key: key.clone(),
                operator: Operator::In,
                values: vec![value.as_str().unwrap_or_default().to_owned()],
            });
        }
        for expression in object::list(selector, "/matchExpressions") {
            let operator = match object::text(expression, "/operator") {
                "In" => Operator::In,
                "NotIn" => Operator::NotIn,
                "Exists" => Operator::Exists,
                "DoesNotExist" => Operator::Absent,
                _ => return None,
            };
            labels.push(LabelTerm {
                key: object::text(expression, "/key").to_owned(),
                operator,
                values: object::list(expression, "/values")
                    .iter()
                    .filter_map(|value| value.as_str().map(str::to_owned))
                    .collect(),
            });
        }
        Some(Self { labels, fields: Vec::new() })
    }

    /// Whether it selects everything.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty() && self.fields.is_empty()
    }

    /// Whether an object is selected.
    pub fn matches(&self, value: &Value) -> bool {
        self.labels.iter().all(|term| term.matches(object::label(value, &term.key)))
            && self.fields.iter().all(|term| (field(value, &term.path) == term.value) == term.equal)
    }

    /// What a field must be for an object to be selected; `None` if the selector leaves that open.
    pub fn exact(&self, path: &str) -> Option<&str> {
        self.fields
            .iter()
            .find(|term| term.equal && term.path == path)
            .map(|term| term.value.as_str())
    }

    /// Reads the `fieldSelector` of an access review. What it can't read it leaves out, as an API server does:
    /// that asks for more.
    pub fn from_field_requirements(selector: Option<&Value>) -> Self {
        let requirements =
            selector.map_or(&[][..], |selector| object::list(selector, "/requirements"));
        let fields = requirements.iter().filter_map(|one| {
            let equal = match object::text(one, "/operator") {
                "In" => true,
                "NotIn" => false,
                _ => return None,
            };
            match object::list(one, "/values") {
                [Value::String(value)] => Some(FieldTerm {
                    path: object::text(one, "/key").to_owned(),
                    equal,
                    value: value.clone(),
                }),
                _ => None,
            }
        });
        Self { labels: Vec::new(), fields: fields.collect() }
    }

    /// The paths of its field terms, so that a face can refuse those a resource does not support.
    pub fn field_paths(&self) -> impl Iterator<Item = &str> {
        self.fields.iter().map(|term| term.path.as_str())
    }
}

impl LabelTerm {
    fn matches(&self, label: Option<&str>) -> bool {
        let named = |label: &str| self.values.iter().any(|value| value == label);
        let compared = |greater: bool| {
            let bound = self.values.first().and_then(|value| value.parse::<i64>().ok());
            let number = label.and_then(|label| label.parse::<i64>().ok());
            number.zip(bound).is_some_and(
                |(number, bound)| {
                    if greater { number > bound } else { number < bound }
                },
            )
        };
        match self.operator {
            Operator::In => label.is_some_and(named),
            Operator::NotIn => !label.is_some_and(named),
            Operator::Exists => label.is_some(),
            Operator::Absent => label.is_none(),
            Operator::Greater => compared(true),
            Operator::Less => compared(false),
        }
    }
}

/// A field's value as a selector compares it: text as it is, everything else printed, absent empty.
fn field(value: &Value, path: &str) -> String {
    let mut place = Some(value);
    for member in path.split('.') {
        place = place.and_then(|place| place.get(member));
    }
    match place {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Bool(flag)) => flag.to_string(),
        Some(Value::Number(number)) => number.to_string(),
        // A boolean that Kubernetes leaves out when it is false.
        _ if path == "spec.unschedulable" || path == "spec.hostNetwork" => "false".to_owned(),
        _ => String::new(),
    }
}

fn parse_fields(text: &str) -> ApiResult<Vec<FieldTerm>> {
    let mut terms = Vec::new();
    for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let (path, equal, value) = if let Some((path, value)) = part.split_once("!=") {
            (path, false, value)
        } else if let Some((path, value)) = part.split_once("==") {
            (path, true, value)
        } else if let Some((path, value)) = part.split_once('=') {
            (path, true, value)
        } else {
            let message = format!("invalid field selector: {part:?}; can't understand {part:?}");
            return Err(ApiFailure::bad_request(message));
        };
        terms.push(FieldTerm {
            path: path.trim().to_owned(),
            equal,
            value: value.trim().to_owned(),
        });
    }
    Ok(terms)
}

/// Splits at commas that are not inside parentheses.
fn split_terms(text: &str) -> Vec<&str> {
    let (mut depth, mut start, mut parts) = (0_i32, 0, Vec::new());
    for (index, character) in text.char_indices() {
        match character {
            '(' => depth += 1,
            ')' => depth -= 1,
            ',' if depth <= 0 => {
                parts.extend(text.get(start..index));
                start = index + 1;
            }
            _ => {}
        }
    }
    parts.extend(text.get(start..));
    parts.into_iter().map(str::trim).filter(|part| !part.is_empty()).collect()
}

fn parse_labels(text: &str) -> ApiResult<Vec<LabelTerm>> {
    split_terms(text).into_iter().map(parse_label_term).collect()
}

fn parse_label_term(part: &str) -> ApiResult<LabelTerm> {
    let term = |key: &str, operator, values: Vec<String>| {
        let key = key.trim();
        let bad = key.is_empty()
            || key.contains(|character: char| {
                character.is_whitespace() || "()=!<>".contains(character)
            });
        if bad {
            let message = format!(
                "unable to parse requirement: {part:?} is not a label selector requirement"
            );
            return Err(ApiFailure::bad_request(message));
        }
        Ok(LabelTerm { key: key.to_owned(), operator, values })
    };
    let one = |value: &str| vec![value.trim().to_owned()];
    if let Some((head, tail)) = part.split_once('(') {
        let values = tail
            .trim_end()
            .trim_end_matches(')')
            .split(',')
            .map(|value| value.trim().to_owned())
            .collect();
        if let Some(key) = head.trim_end().strip_suffix(" notin") {
            return term(key, Operator::NotIn, values);
        }
        let key = head.trim_end().strip_suffix(" in").unwrap_or("");
        return term(key, Operator::In, values);
    }
    if let Some((key, value)) = part.split_once("!=") {
        return term(key, Operator::NotIn, one(value));
    }
    if let Some((key, value)) = part.split_once("==").or_else(|| part.split_once('=')) {
        return term(key, Operator::In, one(value));
    }
    if let Some((key, value)) = part.split_once('>') {
        return term(key, Operator::Greater, one(value));
    }
    if let Some((key, value)) = part.split_once('<') {
        return term(key, Operator::Less, one(value));
    }
    match part.strip_prefix('!') {
        Some(key) => term(key, Operator::Absent, Vec::new()),
        None => term(part, Operator::Exists, Vec::new()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn label_selectors_select_as_kubectl_expects() {
        let pod = json!({"metadata": {"name": "a", "labels": {"app": "web", "tier": "3"}}});
        for (text, selected) in [
            ("app=web", true),
            ("app==web,tier=3", true),
            ("app!=web", false),
            ("zone!=a", true),
            ("app in (web, api)", true),
            ("app notin (web,api)", false),
            ("app", true),
            ("!app", false),
            ("tier>2", true),
            ("tier<2,app=web", false),
        ] {
            assert_eq!(Selector::parse(text, "").unwrap().matches(&pod), selected, "{text}");
        }
        assert_eq!(Selector::parse("a b=c", "").unwrap_err().code, 400);
    }

    #[test]
    fn field_selectors_treat_absent_booleans_as_false() {
        let node = json!({"metadata": {"name": "a"}, "spec": {}});
        let matches = |text| Selector::parse("", text).unwrap().matches(&node);
        assert!(matches("spec.unschedulable=false"));
        assert!(matches("metadata.name=a,spec.nodeName="));
        assert!(!matches("metadata.name!=a"));
        assert_eq!(Selector::parse("", "nonsense").unwrap_err().code, 400);
    }

    #[test]
    fn a_field_is_exact_where_one_value_alone_is_selected() {
        let exact = |text| {
            let selector = Selector::parse("", text).unwrap();
            selector.exact("spec.nodeName").map(str::to_owned)
        };
        assert_eq!(exact("status.phase=Running,spec.nodeName=a").as_deref(), Some("a"));
        for text in ["", "spec.nodeName!=a", "metadata.name=a"] {
            assert_eq!(exact(text), None, "{text}");
        }
        for (operator, values, expected) in [
            ("In", json!(["a"]), Some("a")),
            ("In", json!(["a", "b"]), None),
            ("NotIn", json!(["a"]), None),
            ("Exists", json!([]), None),
        ] {
            let asked = json!({"requirements": [
                {"key": "spec.nodeName", "operator": operator, "values": values}]});
            let selector = Selector::from_field_requirements(Some(&asked));
            assert_eq!(selector.exact("spec.nodeName"), expected, "{asked}");
        }
    }

    #[test]
    fn a_null_label_selector_selects_nothing_and_an_empty_one_everything() {
        assert_eq!(Selector::from_label_selector(Some(&Value::Null)), None);
        let all = Selector::from_label_selector(Some(&json!({}))).unwrap();
        assert!(all.matches(&json!({})));
    }
}
