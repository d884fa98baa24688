//! Certificates that wait to be told where their images came from: only the kubelet knows, and tells by its events. What a
//! birth was is settled before, so that nothing that happens meanwhile is in it. Pure.

use std::collections::VecDeque;

use super::super::certificate::{Certificate, tell_images};
use crate::attribution::images::OfPod;

#[derive(Debug, Default)]
pub struct Held {
    waiting: VecDeque<Waiting>,
    asks: Vec<(String, String)>,
    /// The first of them, CLOCK_MONOTONIC, ns.
    asked_ns: u64,
}

#[derive(Debug)]
struct Waiting {
    certificate: Certificate,
    /// It goes out as it is, CLOCK_MONOTONIC, ns.
    until_ns: u64,
}

impl Held {
    /// Of a thousand at once the first go out untold.
    const MAX: usize = 1024;
    /// While others are being born a question waits so long: it would cost them CPU time, and theirs come soon.
    const TOGETHER_NS: u64 = 2_000_000_000;

    /// Holds a certificate for at most `patience_ns` if there is an image to report, or one of the same pod before it
    /// is held.
    pub fn take(&mut self, mut certificate: Certificate, now_ns: u64, patience_ns: u64) {
        let who = &certificate.who;
        let of = |uid: &String| self.waiting.iter().rev().find(|w| w.certificate.is_of(uid));
        let before = who.pod_uid.as_ref().and_then(of).map(|w| w.until_ns);
        let mut until_ns = before.unwrap_or(now_ns);
        if patience_ns > 0
            && !certificate.restart
            && !certificate.status.containers.is_empty()
            && let (true, Some(namespace), Some(uid)) = (who.confirmed, &who.namespace, &who.pod_uid)
        {
            if self.asks.is_empty() {
                self.asked_ns = now_ns;
            }
            self.asks.push((namespace.clone(), uid.clone()));
            until_ns = now_ns.saturating_add(patience_ns);
            tell_images(&mut certificate.status, &Default::default());
        }
        if self.waiting.len() >= Self::MAX
            && let Some(first) = self.waiting.front_mut()
        {
            first.until_ns = 0;
        }
        self.waiting.push_back(Waiting { certificate, until_ns });
    }

    /// The namespaces and UIDs of pods to be asked for; each once. `busy`: others are being born.
    pub fn asks(&mut self, now_ns: u64, busy: bool) -> Vec<(String, String)> {
        if busy && now_ns.saturating_sub(self.asked_ns) < Self::TOGETHER_NS {
            return Vec::new();
        }
        std::mem::take(&mut self.asks)
    }

    pub fn told(&mut self, told: &OfPod) {
        for waiting in self.waiting.iter_mut().filter(|w| w.certificate.is_of(&told.uid)) {
            tell_images(&mut waiting.certificate.status, &told.images);
            waiting.until_ns = 0;
        }
    }

    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Those that wait no longer; of one pod in the order they came.
    pub fn release(&mut self, now_ns: u64) -> Vec<Certificate> {
        let (mut out, mut kept) = (Vec::new(), VecDeque::new());
        for waiting in self.waiting.drain(..) {
            let uid = waiting.certificate.who.pod_uid.as_ref();
            let blocked = uid.is_some_and(|uid| kept.iter().any(|w: &Waiting| w.certificate.is_of(uid)));
            if waiting.until_ns <= now_ns && !blocked {
                out.push(waiting.certificate);
            } else {
                kept.push_back(waiting);
            }
        }
        self.waiting = kept;
        out
    }
}
