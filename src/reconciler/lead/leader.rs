//! One of the replicas writes: who holds the Lease. Followers hand their connections to it.

use std::net::IpAddr;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use kube::{Api, Client};
use kube_lease_manager::{LeaseManager, LeaseManagerBuilder, LeaseManagerError};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::reconciler::faults::{Fault, FaultLog};
use crate::reconciler::options::ReconcilerOptions;

/// How long a leader that fell silent is waited for, and how often it renews. Seconds.
const LEASE: (u64, u64) = (15, 2);
/// So long after the last renewal a leader writes on; then another may lead. What is left of the Lease is for
/// clocks that differ.
const RENEW_DEADLINE: Duration = Duration::from_secs(12);
/// Requests about the Lease end sooner than a second try would be too late.
pub const REQUEST_MAX: Duration = Duration::from_secs(2);
/// How often a follower looks who leads.
const LOOK: Duration = Duration::from_secs(2);
const HINT: &str = "trying again; the role needs get, create and patch on leases";

/// What this replica is to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Role {
    /// The number tells one term from the next.
    Leader {
        term: u64,
    },
    /// The API server does not answer and the Lease has run out: nothing is taken and nothing written. If it
    /// turns out that nobody else has led meanwhile, the term goes on.
    Paused {
        term: u64,
    },
    Follower {
        leader: Option<Address>,
    },
}

impl Role {
    pub fn leads(&self) -> bool {
        matches!(self, Role::Leader { .. })
    }

    pub fn follows(&self) -> bool {
        matches!(self, Role::Follower { .. })
    }
}

/// Where a replica listens, and what it calls itself in the Lease: `name/ip/otlp port/webhook port`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    pub name: String,
    pub ip: IpAddr,
    pub otlp_port: u16,
    pub webhook_port: u16,
}

impl Address {
    /// As the Lease's holderIdentity carries it.
    pub fn identity(&self) -> String {
        format!("{}/{}/{}/{}", self.name, self.ip, self.otlp_port, self.webhook_port)
    }

    /// From a holderIdentity; `None` for one not written by [`Address::identity`].
    pub fn parse(identity: &str) -> Option<Address> {
        let mut parts = identity.split('/');
        let address = Address {
            name: parts.next().filter(|n| !n.is_empty())?.to_owned(),
            ip: parts.next()?.parse().ok()?,
            otlp_port: parts.next()?.parse().ok()?,
            webhook_port: parts.next()?.parse().ok()?,
        };
        parts.next().is_none().then_some(address)
    }
}

/// Takes part in the election until `stop`, then gives the Lease back; says in `role` what came of
/// it. `client` must give up requests after [`REQUEST_MAX`], so that silence of the API server is
/// noticed in time.
pub async fn run(
    client: Client,
    options: ReconcilerOptions,
    role: watch::Sender<Role>,
    stop: CancellationToken,
) {
    let me = Address {
        name: options.replica.clone(),
        ip: options.replica_ip,
        otlp_port: options.otlp_port,
        webhook_port: options.webhook_port,
    };
    let leases: Api<Lease> = Api::namespaced(client.clone(), &options.namespace);
    let lease =
        Held { api: leases, name: &options.lease_name, me: &me, log: FaultLog::new("holding the Lease") };
    let electing = async {
        while !stop.is_cancelled() {
            match manager(client.clone(), &options, &me).await {
                Ok(manager) => {
                    stop.run_until_cancelled(elect(&manager, &lease, &role)).await;
                    if stop.is_cancelled() && manager.release().await.is_ok() {
                        tracing::info!("the Lease is released");
                    }
                }
                Err(error) => lease.failed(&error),
            }
            stop.run_until_cancelled(sleep(Duration::from_secs(1))).await;
        }
    };
    tokio::select! {
        () = watch_holder(&lease, &role) => {}
        () = electing => {}
    }
}

async fn manager(
    client: Client,
    options: &ReconcilerOptions,
    me: &Address,
) -> Result<LeaseManager, LeaseManagerError> {
    LeaseManagerBuilder::new(client, &options.lease_name)
        .with_namespace(&options.namespace)
        .with_identity(me.identity())
        .with_duration(LEASE.0)
        .with_grace(LEASE.0 - LEASE.1)
        .build()
        .await
}

/// The Lease as this replica sees it.
struct Held<'a> {
    api: Api<Lease>,
    name: &'a str,
    me: &'a Address,
    log: FaultLog,
}

impl Held<'_> {
    fn failed(&self, error: &LeaseManagerError) {
        match error {
            LeaseManagerError::KubeError(error) => self.log.failed(Fault::of(error), error, HINT),
            other => tracing::warn!(lease = self.name, error = %other, "the Lease is made or read again"),
        }
    }

    /// Until the API server shows that a failure is over: a Lease that is to be renewed was, since; or another's is in
    /// force. One that nobody holds, this replica may still be unable to take.
    async fn answered(&self, renews: bool, since: Timestamp) {
        loop {
            sleep(LOOK / 2).await;
            let Ok(lease) = self.api.get_opt(self.name).await else { continue };
            let spec = lease.and_then(|l| l.spec).unwrap_or_default();
            let ours = spec.holder_identity.as_deref().and_then(Address::parse).as_ref() == Some(self.me);
            let Some(renewed) = spec.renew_time.map(|t| t.0) else { continue };
            let in_force = Timestamp::now().duration_since(renewed).as_secs() < LEASE.0.cast_signed();
            let over = if renews { ours && renewed > since } else { in_force };
            if over {
                return;
            }
        }
    }
}

/// When the first of some failures was noticed, in both clocks.
#[derive(Clone, Copy)]
struct Failing {
    at: Instant,
    wall: Timestamp,
}

impl Failing {
    /// When a leader must have stopped: the last renewal was a little before the first that failed.
    fn deadline(self) -> Instant {
        self.at + (RENEW_DEADLINE - Duration::from_secs(LEASE.1) - REQUEST_MAX)
    }
}

/// What came of waiting for a change.
enum News {
    Changed(Result<bool, LeaseManagerError>),
    WorksAgain,
    RanOut,
}

/// Until the Lease is gone, which takes a new manager.
async fn elect(manager: &LeaseManager, lease: &Held<'_>, role: &watch::Sender<Role>) {
    let mut failing: Option<Failing> = None;
    loop {
        let (leads, renews) = (role.borrow().leads(), !role.borrow().follows());
        let news = match failing {
            None => News::Changed(manager.changed().await),
            Some(f) => tokio::select! {
                answer = manager.changed() => News::Changed(answer),
                () = lease.answered(renews, f.wall) => News::WorksAgain,
                () = sleep_until(f.deadline()), if leads => News::RanOut,
            },
        };
        match news {
            News::Changed(Err(LeaseManagerError::KubeError(error))) => {
                lease.log.failed(Fault::of(&error), &error, HINT);
                failing.get_or_insert(Failing { at: Instant::now(), wall: Timestamp::now() });
                sleep(Duration::from_millis(300)).await;
            }
            News::Changed(Err(error)) => {
                lease.failed(&error);
                role.send_if_modified(step_down);
                return;
            }
            News::RanOut => {
                tracing::info!("the Lease ran out: nothing is taken until it can be renewed");
                role.send_if_modified(pause);
            }
            News::Changed(Ok(leads)) => {
                failing = None;
                lease.log.succeeded();
                if leads {
                    tracing::info!(identity = lease.me.identity(), "this replica leads");
                    role.send_modify(lead);
                } else {
                    tracing::info!("another replica leads");
                    role.send_if_modified(step_down);
                }
            }
            News::WorksAgain => {
                failing = None;
                lease.log.succeeded();
                role.send_if_modified(go_on);
            }
        }
    }
}

fn lead(role: &mut Role) {
    // Time is a number that no term before had.
    let term = u64::try_from(Timestamp::now().as_microsecond()).unwrap_or_default();
    *role = Role::Leader { term };
}

fn pause(role: &mut Role) -> bool {
    let Role::Leader { term } = *role else { return false };
    *role = Role::Paused { term };
    true
}

fn go_on(role: &mut Role) -> bool {
    let Role::Paused { term } = *role else { return false };
    *role = Role::Leader { term };
    true
}

fn step_down(role: &mut Role) -> bool {
    let led = !role.follows();
    if led {
        *role = Role::Follower { leader: None };
    }
    led
}

/// While this replica follows, keeps the leader's address current.
async fn watch_holder(lease: &Held<'_>, role: &watch::Sender<Role>) {
    loop {
        if role.borrow().follows()
            && let Ok(found) = lease.api.get_opt(lease.name).await
        {
            let holder = found.and_then(|l| l.spec?.holder_identity);
            let leader = holder.as_deref().and_then(Address::parse).filter(|a| a != lease.me);
            role.send_if_modified(|role| match role {
                Role::Follower { leader: known } if *known != leader => {
                    *known = leader;
                    true
                }
                _ => false,
            });
        }
        sleep(LOOK).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_term_goes_on_only_if_it_was_paused() {
        let mut role = Role::Follower { leader: None };
        assert!(!pause(&mut role) && !go_on(&mut role) && !step_down(&mut role));
        lead(&mut role);
        let first = role.clone();
        assert!(first.leads() && !go_on(&mut role));
        assert!(pause(&mut role) && !role.leads() && !role.follows());
        assert!(go_on(&mut role));
        assert_eq!(role, first);
        assert!(pause(&mut role) && step_down(&mut role) && role.follows() && !go_on(&mut role));
    }

    #[test]
    fn a_leader_stops_before_another_may_begin() {
        let f = Failing { at: Instant::now(), wall: Timestamp::now() };
        // The renewal before: one interval and one request earlier.
        let last = f.at - Duration::from_secs(LEASE.1) - REQUEST_MAX;
        assert_eq!(f.deadline() - last, RENEW_DEADLINE);
        assert!(RENEW_DEADLINE + REQUEST_MAX < Duration::from_secs(LEASE.0));
    }

    #[test]
    fn identity_and_back() {
        for ip in ["10.88.0.5", "fd00::5"] {
            let a =
                Address { name: "op-1".into(), ip: ip.parse().unwrap(), otlp_port: 4317, webhook_port: 8080 };
            assert_eq!(Address::parse(&a.identity()), Some(a));
        }
        for bad in ["", "x", "a/b/c/d", "/10.0.0.1/1/2", "a/10.0.0.1/1/2/3", "a/10.0.0.1/1/70000"] {
            assert_eq!(Address::parse(bad), None, "{bad}");
        }
    }
}
