//! Who may report: a Kubernetes bearer token (TokenReview, bound to our audience) whose owner RBAC
//! allows to `post` to a path (SubjectAccessReview on a non-resource URL). Answers are remembered for
//! a short time, refusals for a shorter one.

use std::num::NonZeroUsize;
use std::time::Duration;

use http::HeaderMap;
use http::header::AUTHORIZATION;
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec, UserInfo};
use k8s_openapi::api::authorization::v1::{
    NonResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec,
};
use kube::api::PostParams;
use kube::{Api, Client};
use sha2::{Digest, Sha256};
use tokio::sync::Semaphore;

use crate::reconciler::faults::{Fault, FaultLog};
use crate::reconciler::lookup::ttl_cache::TtlCache;
use crate::reconciler::refusal::Denied;

/// A token withdrawn is still taken for so long.
const KEEP: Duration = Duration::from_secs(60);
/// A right just granted is still refused for so long.
const KEEP_REFUSED: Duration = Duration::from_secs(10);
/// Tokens remembered: an agent or collector each; about 200 bytes.
const TOKENS_MAX: NonZeroUsize = NonZeroUsize::new(16_384).expect("not zero");
/// A service account's token has about 1 kB.
const TOKEN_MAX: usize = 8192;
/// Reviews under way at once; who comes beyond that is told to come again.
const PARALLEL: usize = 16;
/// Where the API server says which node the pod that owns the token runs on (since 1.30).
const NODE_EXTRA: &str = "authentication.kubernetes.io/node-name";

/// For whose pods a caller may speak.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    Cluster,
    /// Only pods of this node.
    Node(String),
}

/// Reviews tokens.
pub struct Authorizer {
    client: Client,
    audience: String,
    known: TtlCache<[u8; 32], Result<Scope, Denied>>,
    parallel: Semaphore,
    log: FaultLog,
}

impl Authorizer {
    pub fn new(client: Client, audience: String) -> Authorizer {
        Authorizer {
            client,
            audience,
            known: TtlCache::new(TOKENS_MAX),
            parallel: Semaphore::new(PARALLEL),
            log: FaultLog::new("reviewing tokens"),
        }
    }

    /// For whose pods the bearer of the token in these headers may speak at the first of `paths` that
    /// RBAC allows it; a path that ends in `/node` allows only for the node the token is bound to.
    ///
    /// # Errors
    /// [`Denied`], which says what to do.
    pub async fn authorize(&self, headers: &HeaderMap, paths: &[&'static str]) -> Result<Scope, Denied> {
        let token = bearer(headers)?;
        let mut hash = Sha256::new();
        for part in paths {
            hash.update(part.as_bytes());
            hash.update([0]);
        }
        hash.update(token);
        let key: [u8; 32] = hash.finalize().into();
        let keep = |answer: &Result<_, _>| if answer.is_ok() { KEEP } else { KEEP_REFUSED };
        if let Some(answer) = self.known.get(&key, keep) {
            return answer;
        }
        let Ok(_permit) = self.parallel.try_acquire() else { return Err(Denied::Busy) };
        let answer = match self.review(token, paths).await {
            Ok(answer) => {
                self.log.succeeded();
                answer
            }
            Err(error) => {
                self.log.failed(Fault::of(&error), &error, "callers are told to try again; the role needs create on tokenreviews and subjectaccessreviews");
                return Err(Denied::Busy);
            }
        };
        self.known.put(key, answer.clone());
        answer
    }

    async fn review(
        &self,
        token: &str,
        paths: &[&'static str],
    ) -> Result<Result<Scope, Denied>, kube::Error> {
        let review = TokenReview {
            spec: TokenReviewSpec {
                token: Some(token.to_owned()),
                audiences: Some(vec![self.audience.clone()]),
            },
            ..Default::default()
        };
        let review =
            Api::<TokenReview>::all(self.client.clone()).create(&PostParams::default(), &review).await?;
        let status = review.status.unwrap_or_default();
        // An API server whose authenticator knows no audiences answers without them: not for us then.
        let ours = status.audiences.iter().flatten().any(|a| *a == self.audience);
        let Some(user) = status.user.filter(|_| status.authenticated == Some(true) && ours) else {
            return Ok(Err(Denied::BadToken));
        };
        let node = user.extra.as_ref().and_then(|e| e.get(NODE_EXTRA)?.first().cloned());
        for path in paths {
            let scope = match (path.ends_with("/node"), &node) {
                (false, _) => Scope::Cluster,
                (true, Some(node)) => Scope::Node(node.clone()),
                (true, None) => continue,
            };
            if self.allowed(&user, path).await? {
                return Ok(Ok(scope));
            }
        }
        Ok(Err(Denied::NotAllowed))
    }

    async fn allowed(&self, user: &UserInfo, path: &str) -> Result<bool, kube::Error> {
        let review = SubjectAccessReview {
            spec: SubjectAccessReviewSpec {
                user: user.username.clone(),
                uid: user.uid.clone(),
                groups: user.groups.clone(),
                extra: user.extra.clone(),
                non_resource_attributes: Some(NonResourceAttributes {
                    path: Some(path.to_owned()),
                    verb: Some("post".to_owned()),
                }),
                ..Default::default()
            },
            ..Default::default()
        };
        let api = Api::<SubjectAccessReview>::all(self.client.clone());
        let review = api.create(&PostParams::default(), &review).await?;
        Ok(review.status.is_some_and(|s| s.allowed && s.denied != Some(true)))
    }
}

/// The bearer token. What has not the shape of a service account's token (a JWT: three parts of
/// base64url) is turned away without asking the API server.
fn bearer(headers: &HeaderMap) -> Result<&str, Denied> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let (Some(value), None) = (values.next(), values.next()) else { return Err(Denied::NoToken) };
    let value = value.to_str().map_err(|_| Denied::NoToken)?;
    let (scheme, token) = value.split_once(' ').ok_or(Denied::NoToken)?;
    if !scheme.eq_ignore_ascii_case("bearer") {
        return Err(Denied::NoToken);
    }
    let token = token.trim();
    let part =
        |p: &str| !p.is_empty() && p.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
    let jwt = token.len() <= TOKEN_MAX && token.split('.').count() == 3 && token.split('.').all(part);
    if jwt { Ok(token) } else { Err(Denied::BadToken) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_not_the_shape_of_a_token_asks_nobody() {
        let headers = |values: &[&str]| {
            let mut h = HeaderMap::new();
            for v in values {
                h.append(AUTHORIZATION, v.parse().unwrap());
            }
            h
        };
        assert_eq!(bearer(&headers(&["Bearer a.b-_.c"])), Ok("a.b-_.c"));
        assert_eq!(bearer(&headers(&["bearer  a.b.c "])), Ok("a.b.c"));
        for none in [&[][..], &["Bearer"], &["Basic a.b.c"], &["Bearer a.b.c", "Bearer a.b.c"]] {
            assert_eq!(bearer(&headers(none)), Err(Denied::NoToken), "{none:?}");
        }
        let long = format!("Bearer a.{}.c", "b".repeat(TOKEN_MAX));
        for bad in ["Bearer abc", "Bearer a..c", "Bearer a.b.c.d", "Bearer a.b.c=", &long] {
            assert_eq!(bearer(&headers(&[bad])), Err(Denied::BadToken), "{bad}");
        }
    }
}
