//! What the API server says about a pod and what bounds it.

use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::core::v1::{LimitRange, Namespace, Node, Pod, ResourceQuota};
use kube::api::{ApiResource, DynamicObject, ListParams};
use kube::core::GroupVersionKind;
use kube::{Api, Client, ResourceExt};

/// Everything [`super::plan::plan`] decides by, read at one time.
#[derive(Clone, Debug, Default)]
pub struct ClusterState {
    pub pod: Pod,
    pub namespace: Namespace,
    pub horizontal: Vec<HorizontalPodAutoscaler>,
    pub vertical: Vec<VerticalAutoscaler>,
    pub limit_ranges: Vec<LimitRange>,
    pub quotas: Vec<ResourceQuota>,
    pub node: Node,
    /// The pods of that node, this one among them.
    pub node_pods: Vec<Pod>,
}

/// The part of a VerticalPodAutoscaler that matters here; its types are no part of Kubernetes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VerticalAutoscaler {
    pub name: String,
    /// Name of the workload it is for.
    pub target: String,
    /// False in mode `Off`, in which it only recommends.
    pub acts: bool,
}

impl VerticalAutoscaler {
    fn read(object: &DynamicObject) -> VerticalAutoscaler {
        let text =
            |pointer| object.data.pointer(pointer).and_then(serde_json::Value::as_str).unwrap_or_default();
        VerticalAutoscaler {
            name: object.name_any(),
            target: text("/spec/targetRef/name").to_string(),
            acts: text("/spec/updatePolicy/updateMode") != "Off",
        }
    }
}

impl ClusterState {
    /// Reads what bounds `pod` (already read, with its namespace): six requests.
    ///
    /// # Errors
    /// Those of the first request that fails. A cluster without VerticalPodAutoscalers is no failure.
    pub async fn gather(
        client: &Client,
        pod: Pod,
        namespace: Namespace,
    ) -> Result<ClusterState, kube::Error> {
        let ns = namespace.name_any();
        let node_name = pod.spec.as_ref().and_then(|s| s.node_name.clone()).unwrap_or_default();
        let all = ListParams::default();
        let on_node = ListParams::default().fields(&format!("spec.nodeName={node_name}"));

        let horizontal = Api::<HorizontalPodAutoscaler>::namespaced(client.clone(), &ns);
        let limit_ranges = Api::<LimitRange>::namespaced(client.clone(), &ns);
        let quotas = Api::<ResourceQuota>::namespaced(client.clone(), &ns);
        let nodes = Api::<Node>::all(client.clone());
        let pods = Api::<Pod>::all(client.clone());
        let (horizontal, vertical, limit_ranges, quotas, node, node_pods) = tokio::try_join!(
            horizontal.list(&all),
            vertical(client, &ns),
            limit_ranges.list(&all),
            quotas.list(&all),
            nodes.get(&node_name),
            pods.list(&on_node),
        )?;
        Ok(ClusterState {
            pod,
            namespace,
            horizontal: horizontal.items,
            vertical,
            limit_ranges: limit_ranges.items,
            quotas: quotas.items,
            node,
            node_pods: node_pods.items,
        })
    }
}

/// The namespace's VerticalPodAutoscalers; none where the cluster does not know the kind.
async fn vertical(client: &Client, namespace: &str) -> Result<Vec<VerticalAutoscaler>, kube::Error> {
    let kind = GroupVersionKind::gvk("autoscaling.k8s.io", "v1", "VerticalPodAutoscaler");
    let api: Api<DynamicObject> =
        Api::namespaced_with(client.clone(), namespace, &ApiResource::from_gvk(&kind));
    match api.list(&ListParams::default()).await {
        Ok(list) => Ok(list.iter().map(VerticalAutoscaler::read).collect()),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}
