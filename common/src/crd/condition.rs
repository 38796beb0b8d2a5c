//! Status conditions.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::schema;

/// Whether a condition holds.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
pub enum ConditionStatus {
    /// It holds.
    True,
    /// It does not.
    False,
    /// Not known.
    #[default]
    Unknown,
}

/// One condition of an object's status.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    /// What is said, in CamelCase.
    #[serde(rename = "type")]
    #[schemars(length(max = 316))]
    pub type_: String,
    /// Whether it holds.
    pub status: ConditionStatus,
    /// The generation of the object this was said of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub observed_generation: Option<i64>,
    /// When the status last changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::timestamp")]
    pub last_transition_time: Option<Timestamp>,
    /// Why, in one CamelCase word.
    #[serde(default)]
    #[schemars(length(max = 1024))]
    pub reason: String,
    /// Why, for people.
    #[serde(default)]
    #[schemars(length(max = 32768))]
    pub message: String,
}

impl Condition {
    /// The condition of this type in a list.
    pub fn find<'list>(list: &'list [Condition], type_: &str) -> Option<&'list Condition> {
        list.iter().find(|condition| condition.type_ == type_)
    }

    /// Whether a list says that this condition is true.
    pub fn is_true(list: &[Condition], type_: &str) -> bool {
        Self::find(list, type_).is_some_and(|condition| condition.status == ConditionStatus::True)
    }

    /// Puts a condition into a list, sorted by type. The transition time is kept where the status
    /// stays the same. Returns whether anything but that time changed.
    pub fn set(list: &mut Vec<Condition>, mut condition: Condition) -> bool {
        match list.iter_mut().find(|old| old.type_ == condition.type_) {
            Some(old) => {
                if old.status == condition.status {
                    condition.last_transition_time = old.last_transition_time;
                }
                let changed = *old != condition;
                *old = condition;
                changed
            }
            None => {
                list.push(condition);
                list.sort_by(|left, right| left.type_.cmp(&right.type_));
                true
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn setting_keeps_the_time_of_the_last_change_of_status() {
        let at = |second| Timestamp::from_second(second).ok();
        let condition = |status, reason: &str, time| Condition {
            type_: "Ready".to_owned(),
            status,
            reason: reason.to_owned(),
            last_transition_time: time,
            ..Condition::default()
        };
        let mut list = Vec::new();
        assert!(Condition::set(&mut list, condition(ConditionStatus::False, "A", at(1))));
        assert!(!Condition::set(&mut list, condition(ConditionStatus::False, "A", at(2))));
        assert!(Condition::set(&mut list, condition(ConditionStatus::False, "B", at(3))));
        assert_eq!(list[0].last_transition_time, at(1));
        assert!(Condition::set(&mut list, condition(ConditionStatus::True, "B", at(4))));
        assert_eq!(list[0].last_transition_time, at(4));
        assert!(Condition::is_true(&list, "Ready"));
        assert!(!Condition::is_true(&list, "Other"));
    }
}
