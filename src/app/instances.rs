//! The instances of a family, as the API shows them.

use crate::admin::types::InstancesRow;
use crate::affinity::{ArmInstances, FamilyInstances};
use crate::flag::Arm;

/// One row for each arm that has, or had, instances. `legacy_lists`: whether legacy is asked for its own (`alive:`).
pub(super) fn rows(FamilyInstances { engine, legacy, .. }: &FamilyInstances, legacy_lists: bool) -> Vec<InstancesRow> {
    let row = |(arm, instances): (Arm, &ArmInstances)| {
        let ArmInstances { alive, twins_incomplete, has_unknown, oldest, last_ended } = *instances;
        let is_shown = alive > 0 || has_unknown || last_ended.is_some();
        is_shown.then(|| InstancesRow {
            arm,
            alive,
            has_unknown,
            twins_incomplete,
            is_listed: arm == Arm::Legacy && legacy_lists,
            oldest,
            drained: instances.drained(),
        })
    };
    [(Arm::Engine, engine), (Arm::Legacy, legacy)].into_iter().filter_map(row).collect()
}
