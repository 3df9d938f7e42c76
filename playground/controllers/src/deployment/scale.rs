//! A changed number of replicas, spread over the ReplicaSets that run at the moment.

use super::math::Strategy;
use super::plan::{Member, Rollout, sum};
use super::revision;

impl Rollout<'_> {
    /// Whether `spec.replicas` changed since the ReplicaSets were last sized.
    pub fn is_scaling(&self) -> bool {
        self.members()
            .filter(|member| member.size() > 0)
            .filter_map(|member| revision::desired(&member.set))
            .any(|desired| desired != self.wanted)
    }

    /// Scales without rolling: the only active ReplicaSet, or all of them in proportion (Deployment.scale).
    pub fn scale(&mut self) {
        let active: Vec<usize> = (0..self.old.len()).filter(|index| self.old[*index].size() > 0).collect();
        let new_active = self.new.as_ref().is_some_and(|new| new.size() > 0);
        match (new_active, active.as_slice()) {
            (true, []) => {
                self.resize_new(self.wanted);
            }
            (false, [only]) => {
                self.resize_old(*only, self.wanted);
            }
            (false, []) if self.new.is_some() => {
                self.resize_new(self.wanted);
            }
            (false, []) => {
                if let Some(latest) = self.old.len().checked_sub(1) {
                    self.resize_old(latest, self.wanted);
                }
            }
            _ if self.is_saturated() => {
                for index in active {
                    self.resize_old(index, 0);
                }
            }
            _ => self.scale_in_proportion(),
        }
    }

    /// Whether the new ReplicaSet alone does all that is wanted.
    fn is_saturated(&self) -> bool {
        self.new.as_ref().is_some_and(|new| {
            revision::desired(&new.set) == Some(self.wanted)
                && new.size() == self.wanted
                && new.available() == self.wanted
        })
    }

    fn scale_in_proportion(&mut self) {
        let Strategy::Rolling { surge, .. } = self.strategy else { return };
        let total = sum(self.members().map(Member::size));
        let allowed = if self.wanted > 0 { self.wanted.saturating_add(surge) } else { 0 };
        let add = allowed - total;
        // `None` stands for the new ReplicaSet, which is the newest.
        let mut order: Vec<(i32, Option<usize>)> = self
            .old
            .iter()
            .enumerate()
            .filter(|(_, old)| old.size() > 0)
            .map(|(index, old)| (old.size(), Some(index)))
            .chain(self.new.iter().filter(|new| new.size() > 0).map(|new| (new.size(), None)))
            .collect();
        // Largest first; of equals the newest grows first and the oldest shrinks first.
        let age = |index: &Option<usize>| index.map_or(i64::MAX, |index| i64::try_from(index).unwrap_or(0));
        order.sort_by(|a, b| {
            let by_age = if add > 0 { age(&b.1).cmp(&age(&a.1)) } else { age(&a.1).cmp(&age(&b.1)) };
            b.0.cmp(&a.0).then(by_age)
        });
        let mut added = 0;
        let mut sizes = Vec::with_capacity(order.len());
        for (size, index) in &order {
            let share = self.proportion(*index, *size, allowed, add, added);
            added += share;
            sizes.push((*index, size + share));
        }
        if let Some(first) = sizes.first_mut() {
            first.1 = (first.1 + (add - added)).max(0);
        }
        for (index, size) in sizes {
            match index {
                Some(index) => self.resize_old(index, size),
                None => self.resize_new(size),
            };
        }
    }

    fn proportion(&self, index: Option<usize>, size: i32, allowed: i32, add: i32, added: i32) -> i32 {
        if size == 0 || add == 0 || add == added {
            return 0;
        }
        let member = index.map_or(self.new.as_ref(), |index| self.old.get(index));
        let before = member
            .and_then(|member| revision::maximum(&member.set))
            .filter(|maximum| *maximum > 0)
            .or_else(|| self.deployment.status.as_ref().and_then(|status| status.replicas))
            .filter(|before| *before > 0);
        let fraction = match before {
            _ if self.wanted == 0 => -size,
            Some(before) => {
                let (size, allowed, before) = (i64::from(size), i64::from(allowed), i64::from(before));
                // Rounded half up; all numbers are positive.
                let scaled = (2 * size * allowed + before) / (2 * before);
                i32::try_from(scaled - size).unwrap_or(0)
            }
            None => 0,
        };
        let left = add - added;
        if add > 0 { fraction.min(left) } else { fraction.max(left) }
    }
}
