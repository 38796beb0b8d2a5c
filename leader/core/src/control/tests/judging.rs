//! Plans that the independent check judges before they are acted on.

use super::rig::*;
use crate::control::{PlanChecks, PlanPurpose};
use crate::planner::check::Violation;

fn violation() -> Violation {
    Violation { subject: "default/web-0".to_owned(), rule: "has no room".to_owned() }
}

#[test]
fn plans_that_pass_are_acted_on_and_counted() {
    let mut rig = Rig::new();
    rig.control.settings.check_plans = true;
    rig.run(2);
    rig.world.add_pods("web", 2, 800);
    rig.run(10);
    assert_eq!(rig.world.running_pods(), 2);
    let status = rig.control.status(&rig.state, rig.world.now);
    let checks = status.plan_checks[&PlanPurpose::Provisioning];
    assert!(checks.sound > 0 && checks.broken == 0, "{checks:?}");
    assert_eq!(rig.control.take_violations(), []);
}

#[test]
fn a_plan_that_breaks_a_rule_is_told_and_not_acted_on_until_one_passes() {
    let mut rig = Rig::new();
    rig.control.settings.check_plans = true;
    rig.control.soundness.broken = Some(violation());
    rig.run(2);
    rig.world.add_pods("web", 2, 800);
    rig.run(10);
    assert_eq!((rig.world.instances.len(), rig.state.claims.len()), (0, 0));
    let status = rig.control.status(&rig.state, rig.world.now);
    let checks = status.plan_checks[&PlanPurpose::Provisioning];
    assert!(checks.broken > 0 && checks.sound == 0, "{checks:?}");
    assert_eq!(
        status.problems["plans for provisioning"],
        "the last broke a rule and was not acted on: default/web-0: has no room"
    );
    let told = rig.control.take_violations();
    assert_eq!(told.first(), Some(&(PlanPurpose::Provisioning, violation())));
    assert_eq!(rig.control.take_violations(), [], "each is told once");
    rig.control.soundness.broken = None;
    rig.run(30);
    assert_eq!(rig.world.running_pods(), 2, "looked at again");
    let status = rig.control.status(&rig.state, rig.world.now);
    assert!(!status.problems.contains_key("plans for provisioning"));
}

#[test]
fn no_plan_is_judged_unless_that_is_asked_for() {
    let mut rig = Rig::new();
    rig.control.soundness.broken = Some(violation());
    rig.run(2);
    rig.world.add_pods("web", 2, 800);
    rig.run(10);
    assert_eq!(rig.world.running_pods(), 2);
    let status = rig.control.status(&rig.state, rig.world.now);
    assert_eq!(status.plan_checks.get(&PlanPurpose::Provisioning), None::<&PlanChecks>);
}
