//! Fields of an EC2NodeClass that this version can't honour. A class that uses one is refused:
//! an instance without its placement group is not what was asked for.

use drover_common::crd::{Ec2NodeClass, FieldError};

/// The fields in use that would be passed over.
pub(super) fn refused_fields(class: &Ec2NodeClass) -> Vec<FieldError> {
    let spec = &class.spec;
    let used = [
        ("placementGroupSelector", spec.placement_group_selector.is_some()),
        ("networkInterfaces", !spec.network_interfaces.is_empty()),
        ("connectionTracking", spec.connection_tracking.is_some()),
        ("cpuOptions", spec.cpu_options.is_some()),
        ("ipPrefixCount", spec.ip_prefix_count.is_some()),
    ];
    used.into_iter()
        .filter(|(_, used)| *used)
        .map(|(field, _)| FieldError {
            field: format!("spec.{field}"),
            reason: "not supported by this version".to_owned(),
        })
        .collect()
}
