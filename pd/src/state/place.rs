//! Where the replicas of a group stand: spread over datacenters first, which is a hard rule, then
//! over nodes by how much they carry already.

/// A node that may carry a replica.
#[derive(Debug, Clone)]
pub(super) struct Candidate {
    /// Its name.
    pub name: String,
    /// The failure domain that must not hold too many replicas of a group.
    pub datacenter: String,
    /// Replicas that it carries of all groups.
    pub replicas: usize,
    /// Groups that prefer it as leader.
    pub leaders: usize,
}

/// Most replicas of a group in one datacenter, so that they are spread as evenly as can be. With
/// three datacenters or more, the loss of any one leaves a quorum.
pub(super) fn cap_per_datacenter(replicas: usize, datacenters: usize) -> usize {
    replicas.div_ceil(datacenters.clamp(1, replicas))
}

/// Chooses as many nodes as there shall be replicas, the least loaded first. The caller counts
/// them as loaded. `datacenters` is how many the cluster has, whether or not they have candidates.
pub(super) fn place(
    candidates: &[Candidate],
    replicas: usize,
    datacenters: usize,
) -> Result<Vec<usize>, String> {
    let cap = cap_per_datacenter(replicas, datacenters);
    let mut chosen: Vec<usize> = Vec::with_capacity(replicas);
    while chosen.len() < replicas {
        let beside = |datacenter: &str| {
            chosen.iter().filter(|&&i| candidates[i].datacenter == datacenter).count()
        };
        let best = (0..candidates.len())
            .filter(|i| !chosen.contains(i) && beside(&candidates[*i].datacenter) < cap)
            .min_by_key(|&i| {
                let node = &candidates[i];
                (beside(&node.datacenter), node.replicas, &node.name)
            });
        let Some(best) = best else {
            return Err(format!(
                "{replicas} replicas with at most {cap} in one of {datacenters} datacenters need \
                 more nodes than are alive ({})",
                candidates
                    .iter()
                    .map(|node| format!("{} in {}", node.name, node.datacenter))
                    .collect::<Vec<_>>()
                    .join(", ")
            ));
        };
        chosen.push(best);
    }
    Ok(chosen)
}
