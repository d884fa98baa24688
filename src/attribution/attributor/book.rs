//! A reading's numbers of cgroups, added up to those of their workloads.

use super::{Attributor, Entry};
use crate::attribution::account::{self, Account};
use crate::attribution::tree::{KeyId, Tree};
use crate::kernel::{Counter, Hierarchy, Reading};

impl Attributor {
    pub(super) fn book_cpu(&mut self, reading: &Reading) {
        self.booking.clear();
        for cpu in &reading.cpu {
            let Some(key) = self.tree.key(cpu.cgroup) else {
                self.unresolved.note(cpu.cgroup);
                continue;
            };
            match self.cgroups[key].place(self.reading, self.booking.len()) {
                None => self.booking.push((key, cpu.counters)),
                // The counters of another slot of the same cgroup.
                Some(place) => self.booking[place].1.add(&cpu.counters),
            }
        }
        for (key, counters) in &self.booking {
            if let Some(account) = account_of(&self.tree, &mut self.workloads, *key, self.reading) {
                self.cgroups[*key].book(counters, account);
            }
        }
        for (key, _) in &self.booking {
            if let Some(account) = account_of(&self.tree, &mut self.workloads, *key, self.reading) {
                account.settle();
            }
        }
    }

    pub(super) fn book_stats(&mut self, reading: &Reading) {
        for stat in &reading.stats {
            let Some(key) = self.tree.key(stat.cgroup) else {
                self.unresolved.note(stat.cgroup);
                continue;
            };
            let id = self.tree.node_of(key);
            let node = self.tree.node(id);
            let hierarchy = stat.cgroup.hierarchy;
            // The quota is where the cpu controller is: in v1, or else in v2.
            let of_cpu_controller = match hierarchy {
                Hierarchy::V1Cpu => true,
                Hierarchy::Unified => !node.is_in(Hierarchy::V1Cpu),
                Hierarchy::V1Memory => false,
            };
            if of_cpu_controller {
                self.quotas[id] = account::quota_cores(&stat.stat);
            }
            if node.anchor == id
                && let Some(account) = account_of(&self.tree, &mut self.workloads, key, self.reading)
            {
                account.set_stat(hierarchy, stat.stat, self.reading);
            }
        }
    }

    /// Who reclaimed, and what the memory controller says of those who waited.
    pub(super) fn book_memory(&mut self, reading: &Reading) {
        for reclaim in &reading.reclaim {
            let Some(key) = self.tree.key(reclaim.cgroup) else { continue };
            if let Some(account) = account_of(&self.tree, &mut self.workloads, key, self.reading) {
                self.cgroups[key].book_reclaim(&reclaim.counters, account);
            }
        }
        for memory in &reading.memory {
            let Some(key) = self.tree.key(memory.cgroup) else { continue };
            let node = self.tree.node_of(key);
            if self.tree.node(node).anchor == node
                && let Some(account) = account_of(&self.tree, &mut self.workloads, key, self.reading)
            {
                account.memory = Some(memory.stat);
            }
        }
    }

    /// A pod's network is the pod's: its containers share it.
    pub(super) fn book_network(&mut self, reading: &Reading) {
        let (tree, workloads) = (&self.tree, &self.workloads);
        let grown = self.networks.book(reading, |cgroup| {
            let anchor = tree.node(tree.node_of(tree.key(cgroup)?)).anchor;
            Some(workloads.get(anchor)?.as_deref()?.pod.unwrap_or(anchor))
        });
        for grown in grown {
            if let Some(entry) = self.workloads[grown.owner].as_deref_mut()
                && let Some(account) = entry.account.as_deref_mut()
            {
                grown.add_to(account.network.get_or_insert_default());
            }
        }
    }

    pub(super) fn book_blame(&mut self, reading: &Reading) {
        for blame in &reading.blame {
            let [victim, culprit] = [blame.victim, blame.culprit].map(|cgroup| {
                let key = self.tree.key(cgroup);
                if key.is_none() {
                    self.unresolved.note(cgroup);
                }
                key
            });
            let (Some(victim), Some(culprit)) = (victim, culprit) else { continue };
            let key = (victim, culprit, blame.table);
            if self.pairs.len() >= Self::PAIRS_MAX && !self.pairs.contains_key(&key) {
                self.out.attribution.pairs_dropped += 1;
                continue;
            }
            let pair = self.pairs.entry(key).or_default();
            pair.now = if pair.reading == self.reading { pair.now + blame.ns } else { blame.ns };
            pair.reading = self.reading;
        }
        for (&(victim, culprit, _), pair) in self.pairs.iter_mut().filter(|(_, p)| p.reading == self.reading)
        {
            // Less than before: the kernel's table began again at zero.
            let grown = pair.now.checked_sub(pair.last).unwrap_or(pair.now);
            pair.last = pair.now;
            let anchor = |key| self.tree.node(self.tree.node_of(key)).anchor;
            let (victim_at, culprit_at) = (anchor(victim), anchor(culprit));
            let account = self.workloads[victim_at].as_deref_mut().and_then(|e| e.account.as_deref_mut());
            let Some(account) = account else { continue };
            if victim_at == culprit_at {
                account.within += grown;
            } else {
                *self.blame.entry((victim_at, culprit_at)).or_default() += grown;
            }
        }
    }
}

/// The account a cgroup's numbers go to, unless its workload's last word is said.
fn account_of<'a>(
    tree: &Tree,
    workloads: &'a mut [Option<Box<Entry>>],
    key: KeyId,
    reading: u64,
) -> Option<&'a mut Account> {
    let entry = workloads[tree.node(tree.node_of(key)).anchor].as_deref_mut()?;
    entry.heard = reading;
    entry.account.as_deref_mut()
}
