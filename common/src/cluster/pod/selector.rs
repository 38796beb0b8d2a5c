//! Which pods and namespaces a label selector picks.

use std::collections::BTreeMap;

use super::{LabelSelector, LabelSelectorRequirement};

impl LabelSelector {
    /// Whether it picks an object with these labels. An empty selector picks everything; where an
    /// absent one picks nothing, the field is an `Option` and its user says so. An unknown operator
    /// picks nothing.
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        self.match_labels.iter().all(|(key, value)| labels.get(key) == Some(value))
            && self.match_expressions.iter().all(|expression| expression.matches(labels))
    }

    /// [`LabelSelector::matches`] for an optional selector: `None` picks nothing.
    pub fn picks(selector: Option<&LabelSelector>, labels: &BTreeMap<String, String>) -> bool {
        selector.is_some_and(|selector| selector.matches(labels))
    }
}

impl LabelSelectorRequirement {
    fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        let value = labels.get(&self.key);
        let listed = value.is_some_and(|value| self.values.contains(value));
        match self.operator.as_str() {
            "In" => listed,
            "NotIn" => !listed,
            "Exists" => value.is_some(),
            "DoesNotExist" => value.is_none(),
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selectors_pick_as_kubernetes_picks() {
        let labels = BTreeMap::from([("app".to_owned(), "web".to_owned())]);
        for (text, expected) in [
            ("{}", true),
            (r#"{"matchLabels":{"app":"web"}}"#, true),
            (r#"{"matchLabels":{"app":"api"}}"#, false),
            (
                r#"{"matchExpressions":[{"key":"app","operator":"In","values":["api","web"]}]}"#,
                true,
            ),
            (r#"{"matchExpressions":[{"key":"app","operator":"NotIn","values":["web"]}]}"#, false),
            (r#"{"matchExpressions":[{"key":"tier","operator":"NotIn","values":["x"]}]}"#, true),
            (r#"{"matchExpressions":[{"key":"tier","operator":"Exists"}]}"#, false),
            (r#"{"matchExpressions":[{"key":"tier","operator":"DoesNotExist"}]}"#, true),
            (r#"{"matchExpressions":[{"key":"app","operator":"Like"}]}"#, false),
        ] {
            let selector: LabelSelector = serde_json::from_str(text).unwrap();
            assert_eq!(selector.matches(&labels), expected, "{text}");
            assert_eq!(LabelSelector::picks(Some(&selector), &labels), expected, "{text}");
        }
        assert!(!LabelSelector::picks(None, &labels));
    }
}
