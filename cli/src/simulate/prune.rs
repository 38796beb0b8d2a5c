//! Leaves out what no plan reads of a pod or node before its YAML is parsed: most of it, and parsing
//! is what a large dump takes time for.

/// Fields of pods and nodes that are large and say nothing to a plan, and tell no time. None is also a label,
/// annotation or resource with nested fields: those hold texts alone.
const UNREAD: [&str; 19] = [
    "args",
    "command",
    "configMap",
    "downwardAPI",
    "env",
    "envFrom",
    "fieldsV1",
    "hostIPs",
    "images",
    "lifecycle",
    "livenessProbe",
    "podIPs",
    "projected",
    "readinessProbe",
    "secret",
    "securityContext",
    "startupProbe",
    "volumeDevices",
    "volumeMounts",
];

/// Takes one object's lines.
#[derive(Debug, Default)]
pub(crate) struct Pruner {
    /// Whether the object is of a kind that is pruned, once its `kind` was seen.
    applies: bool,
    /// Column of the key whose value is being left out.
    skipping: Option<usize>,
}

impl Pruner {
    /// Appends a line, unless it is left out.
    pub(crate) fn push(&mut self, line: &str, object: &mut String) {
        let text = line.trim_start_matches(' ');
        let indent = line.len() - text.len();
        if let Some(column) = self.skipping {
            // A sequence may stand in the column of its key.
            let inside = indent > column || (indent == column && text.starts_with('-'));
            if inside || text.is_empty() {
                return;
            }
            self.skipping = None;
        }
        if matches!(line, "kind: Pod" | "kind: Node") {
            self.applies = true;
        }
        let after_dashes = text.trim_start_matches("- ");
        let column = indent + (text.len() - after_dashes.len());
        let unread = after_dashes.strip_suffix(':').is_some_and(|key| UNREAD.contains(&key));
        if self.applies && unread && column > 0 {
            self.skipping = Some(column);
            // The element that begins here goes on with its next key.
            object.push_str(line.get(..column).unwrap_or_default().trim_end());
        } else {
            object.push_str(line);
        }
        object.push('\n');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pruned(text: &str) -> String {
        let mut pruner = Pruner::default();
        let mut object = String::new();
        text.lines().for_each(|line| pruner.push(line, &mut object));
        object
    }

    #[test]
    fn what_is_left_says_the_same_to_a_plan() {
        let text = "kind: Pod\nmetadata:\n  labels:\n    env: prod\n  managedFields:\n  - fieldsV1:\n      f:a: {}\n    \
                    time: now\n  name: a\n\
                    spec:\n  containers:\n  - args:\n    - --x\n    env:\n    - name: A\n      value: |-\n        text\n\n        more\n    \
                    name: c\n    resources:\n      requests:\n        cpu: 1\n  - command: [a]\n    name: d\n";
        let object: serde_json::Value = serde_saphyr::from_str(&pruned(text)).unwrap();
        let expected = serde_json::json!({
            "kind": "Pod",
            "metadata": {"labels": {"env": "prod"}, "managedFields": [{"time": "now"}], "name": "a"},
            "spec": {"containers": [
                {"name": "c", "resources": {"requests": {"cpu": 1}}},
                {"command": ["a"], "name": "d"},
            ]},
        });
        assert_eq!(object, expected);
    }

    #[test]
    fn other_kinds_are_left_as_they_are() {
        let text = "kind: DaemonSet\nspec:\n  env:\n  - a\n";
        assert_eq!(pruned(text), text);
    }
}
