//! One of the replicas writes: who holds the Lease. Followers hand their connections to it.

use std::net::IpAddr;
use std::time::Duration;

use k8s_openapi::api::coordination::v1::Lease;
use kube::{Api, Client};
use kube_lease_manager::{LeaseManager, LeaseManagerBuilder, LeaseManagerError};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::options::ReconcilerOptions;

/// How long a leader that fell silent is waited for, and how long before the end of its time it
/// begins to renew. Seconds.
const LEASE: (u64, u64) = (12, 5);
/// Requests about the Lease end sooner than a second try would be too late.
pub const REQUEST_MAX: Duration = Duration::from_secs(2);
/// How often a follower looks who leads.
const LOOK: Duration = Duration::from_secs(2);

/// What this replica is to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Role {
    Leader,
    Follower { leader: Option<Address> },
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
    let electing = async {
        while !stop.is_cancelled() {
            match manager(client.clone(), &options, &me).await {
                Ok(manager) => {
                    stop.run_until_cancelled(elect(&manager, &me, &role)).await;
                    if stop.is_cancelled() && manager.release().await.is_ok() {
                        tracing::info!("the Lease is given back");
                    }
                }
                Err(error) => {
                    let (error, lease) = (error.to_string().replace('\n', " "), &options.lease_name);
                    tracing::warn!(
                        error,
                        lease,
                        "no Lease, no leader; trying again (the role needs get, create and patch on leases)"
                    );
                    stop.run_until_cancelled(sleep(Duration::from_secs(5))).await;
                }
            }
        }
    };
    tokio::select! {
        () = watch_holder(&leases, &options.lease_name, &me, &role) => {}
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
        .with_grace(LEASE.1)
        .build()
        .await
}

/// Until something is so wrong that a new start is better.
async fn elect(manager: &LeaseManager, me: &Address, role: &watch::Sender<Role>) {
    let mut failing: Option<Instant> = None;
    loop {
        let leads = *role.borrow() == Role::Leader;
        // The manager says nothing of a renewal that went well. One that fails says so within
        // REQUEST_MAX, so silence for longer than that means it went well.
        let answer = match failing {
            Some(_) => timeout(REQUEST_MAX * 2, manager.changed()).await,
            None => Ok(manager.changed().await),
        };
        match answer {
            Err(_) => {
                tracing::info!(leads, "the Lease can be renewed again");
                failing = None;
            }
            Ok(Ok(true)) => {
                failing = None;
                tracing::info!(identity = me.identity(), "this replica leads");
                role.send_replace(Role::Leader);
            }
            Ok(Ok(false)) => {
                failing = None;
                tracing::info!("another replica leads");
                role.send_if_modified(step_down);
            }
            Ok(Err(error)) => {
                let since = *failing.get_or_insert_with(|| {
                    let error = error.to_string().replace('\n', " ");
                    tracing::warn!(error, leads, "the Lease cannot be read or renewed");
                    Instant::now()
                });
                // Another may lead from here on: to go on writing would be two leaders.
                if since.elapsed() + REQUEST_MAX >= Duration::from_secs(LEASE.1) {
                    if role.send_if_modified(step_down) {
                        tracing::warn!("this replica does not lead any more: its Lease ran out");
                    }
                    sleep(Duration::from_secs(1)).await;
                    return;
                }
                sleep(Duration::from_millis(300)).await;
            }
        }
    }
}

fn step_down(role: &mut Role) -> bool {
    let leads = *role == Role::Leader;
    if leads {
        *role = Role::Follower { leader: None };
    }
    leads
}

/// While this replica follows, keeps the leader's address current.
async fn watch_holder(leases: &Api<Lease>, name: &str, me: &Address, role: &watch::Sender<Role>) {
    loop {
        if *role.borrow() != Role::Leader
            && let Ok(lease) = leases.get_opt(name).await
        {
            let holder = lease.and_then(|l| l.spec?.holder_identity);
            let leader = holder.as_deref().and_then(Address::parse).filter(|a| a != me);
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
