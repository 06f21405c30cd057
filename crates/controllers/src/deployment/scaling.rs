//! A new size of a Deployment, shared among the ReplicaSets of a rollout that is under way.
//!
//! Pure: each set gets its share in proportion, so that the risk of a half-done rollout stays what it was.
//! (k/k `pkg/controller/deployment/sync.go` `scale`, `util/deployment_util.go` `GetReplicaSetProportion`, v1.36.)

use std::cmp::Reverse;

use jiff::Timestamp;

/// A ReplicaSet with replicas.
#[derive(Clone, Debug)]
pub(super) struct Active {
    pub(super) replicas: i32,
    /// What annotation `deployment.kubernetes.io/max-replicas` says the whole Deployment could have before.
    pub(super) most_before: Option<i32>,
    pub(super) created: Option<Timestamp>,
    pub(super) name: String,
}

/// The Deployment as it is to be.
#[derive(Clone, Copy, Debug)]
pub(super) struct Target {
    pub(super) desired: i32,
    pub(super) surge: i32,
    /// `status.replicas`, for sets that lack the annotation.
    pub(super) status_replicas: i32,
}

/// The new size of each set.
pub(super) fn distribute(target: Target, sets: &[Active]) -> Vec<i32> {
    let allowed = if target.desired > 0 {
        target.desired + target.surge
    } else {
        0
    };
    let to_add = allowed - sets.iter().map(|set| set.replicas).sum::<i32>();
    let mut sizes: Vec<i32> = sets.iter().map(|set| set.replicas).collect();
    if to_add == 0 {
        return sizes;
    }
    // The largest first; among equals the newest grows first and the oldest shrinks first.
    let mut order: Vec<usize> = (0..sets.len()).collect();
    order.sort_by_key(|&i| {
        let age = (sets[i].created, &sets[i].name);
        (
            Reverse(sets[i].replicas),
            (to_add < 0).then_some(age),
            (to_add > 0).then_some(Reverse(age)),
        )
    });
    let mut added = 0;
    for &i in &order {
        let share = proportion(target, &sets[i], to_add, added);
        sizes[i] += share;
        added += share;
    }
    if let Some(&largest) = order.first() {
        sizes[largest] = (sizes[largest] + to_add - added).max(0);
    }
    sizes
}

fn proportion(target: Target, set: &Active, to_add: i32, added: i32) -> i32 {
    if set.replicas == 0 || to_add == added {
        return 0;
    }
    let (share, left) = (share(target, set), to_add - added);
    // Grow as much as can be added, or shrink as much as has to go, and no more.
    if to_add > 0 { share.min(left) } else { share.max(left) }
}

fn share(target: Target, set: &Active) -> i32 {
    if target.desired == 0 {
        return -set.replicas;
    }
    let before = match set.most_before {
        None | Some(0) => target.status_replicas,
        Some(most) => most,
    };
    if before == 0 {
        // Somebody took the annotation away and nothing runs: there is nothing to be in proportion to.
        return 0;
    }
    let size = f64::from(set.replicas) * f64::from(target.desired + target.surge) / f64::from(before);
    // Half away from zero; sizes are small enough for the cast.
    size.round() as i32 - set.replicas
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Newest first, as `v3, v2, v1`.
    fn scaled(desired: i32, surge: i32, most_before: i32, replicas: &[i32]) -> Vec<i32> {
        let sets: Vec<Active> = replicas
            .iter()
            .enumerate()
            .map(|(age, &replicas)| Active {
                replicas,
                most_before: Some(most_before),
                created: Timestamp::from_second(1000 - i64::try_from(age).unwrap()).ok(),
                name: format!("v{age}"),
            })
            .collect();
        distribute(
            Target {
                desired,
                surge,
                status_replicas: most_before,
            },
            &sets,
        )
    }

    /// k/k `TestScale`.
    #[test]
    fn every_set_keeps_its_proportion() {
        for (desired, surge, before, sets, expected) in [
            (10, 0, 5, vec![2, 3], vec![4, 6]),
            (3, 0, 5, vec![2, 3], vec![1, 2]),
            (4, 0, 9, vec![8, 1], vec![4, 0]),
            (10, 0, 7, vec![2, 3, 2], vec![3, 4, 3]),
            (8, 0, 13, vec![2, 8, 3], vec![1, 5, 2]),
            (4, 0, 3, vec![1, 1, 1], vec![2, 1, 1]),
            (0, 0, 10, vec![5, 5], vec![0, 0]),
            (20, 2, 12, vec![6, 6], vec![11, 11]),
            (50, 6, 13, vec![5, 8], vec![22, 34]),
        ] {
            assert_eq!(
                scaled(desired, surge, before, &sets),
                expected,
                "{sets:?} → {desired}+{surge}"
            );
        }
    }

    #[test]
    fn the_oldest_of_equal_sets_shrinks_first() {
        assert_eq!(scaled(2, 0, 3, &[1, 1, 1]), [1, 1, 0]);
    }

    #[test]
    fn a_set_without_the_annotation_is_in_proportion_to_what_runs() {
        let mut set = Active {
            replicas: 2,
            most_before: None,
            created: None,
            name: "a".into(),
        };
        let target = Target {
            desired: 10,
            surge: 0,
            status_replicas: 4,
        };
        assert_eq!(share(target, &set), 3);
        set.most_before = Some(0);
        assert_eq!(
            share(
                Target {
                    status_replicas: 0,
                    ..target
                },
                &set
            ),
            0
        );
    }
}
