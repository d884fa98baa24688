//! `kernel-gossip check`: what this host allows, and what the agent makes of it.

#[cfg(test)]
mod tests;

use std::io::{self, Write};
use std::process::ExitCode;

use anyhow::{Context, Result};
use serde::Serialize;

use crate::attribution::HostArgs;
use crate::attribution::bundle::{Bundles, Directory};
use crate::attribution::paths::{self, UnknownShapes};
use crate::kernel::cgroups::{self, Roots};
use crate::kernel::cpu::DEFAULT_CGROUPS;
use crate::kernel::driver::DriverOptions;
use crate::kernel::facts::{Facts, FactsOptions, Pressure};
use crate::kernel::plan::{Plan, plan};
use crate::kernel::rehearsal::Rehearsal;
use crate::kernel::verdict::Planned;
use crate::plain::Plain;
use crate::sinks::otlp::config::ConfigError;
use crate::sinks::otlp::probe::{self, Tried};
use crate::sinks::otlp::{OtlpArgs, OtlpConfig};

/// How to look, and how to tell.
#[derive(Clone, Debug, clap::Args)]
pub struct CheckArgs {
    /// Output format
    #[arg(long, value_enum, default_value_t = Format::Text)]
    pub output: Format,
    #[command(flatten)]
    pub host: HostArgs,
    /// The agent's OTLP flags: these receivers are tried
    #[command(flatten)]
    pub otlp: OtlpArgs,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// For people
    Text,
    /// One object: facts, plan, programs, runtimes, otlp, unknown_cgroup_shapes, runs, names
    Json,
}

/// Looks at this host and writes to stdout what it found.
///
/// The exit code is 0 if the agent can run here, with BPF or from cgroup files only, and 1 if there is nothing for it to
/// read, no cgroup that it could name, or an OTLP setting that it refuses. A receiver that cannot be reached is reported
/// and changes nothing: the agent keeps what it has for it.
///
/// # Errors
/// When stdout cannot be written.
pub async fn run(args: &CheckArgs) -> Result<ExitCode> {
    let options = FactsOptions {
        cgroup_root: args.host.cgroup_root.clone(),
        every_trial: true,
        kubeconfig: args.host.kubeconfig.clone(),
        ..FactsOptions::default()
    };
    let facts = Facts::gather(&options).await;
    let plan = plan(&facts);
    let unknown_shapes = &unknown_shapes(&facts);
    // As many cgroups as by default: the configuration is the agent's.
    let programs = &DriverOptions::of(&facts, &plan, DEFAULT_CGROUPS).rehearse();
    let runtimes = &Bundles::new(&args.host.runtime_root).directories();
    let otlp = &receivers(&args.otlp).await;
    let found =
        Found { facts: &facts, plan: &plan, programs, runtimes, otlp, unknown_cgroup_shapes: unknown_shapes };
    let mut out = io::stdout().lock();
    match args.output {
        Format::Text => write_text(&mut out, &found).context("stdout")?,
        Format::Json => {
            let report = Report { found, runs: plan.runs(), names: found.names() };
            serde_json::to_writer_pretty(&mut out, &report).context("stdout")?;
            writeln!(out).context("stdout")?;
        }
    }
    let starts = plan.runs() && found.names() && !otlp.iter().any(|tried| tried.refused_at_start);
    Ok(if starts { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Tries the OTLP receivers that flags and variables name, as the agent would take them.
async fn receivers(args: &OtlpArgs) -> Vec<Tried> {
    let env = |name: &str| std::env::var(name).ok();
    match OtlpConfig::new(args, env) {
        Ok(Some(config)) => probe::try_receivers(&config).await,
        Ok(None) => Vec::new(),
        Err(ConfigError { setting, message }) => vec![Tried {
            endpoint: setting,
            kinds: Vec::new(),
            refused_at_start: true,
            error: Some(message),
            what_to_do: None,
        }],
    }
}

/// A few of the cgroups here that look like a pod's or a container's and follow no known rule.
fn unknown_shapes(facts: &Facts) -> Vec<String> {
    let mut shapes = UnknownShapes::default();
    cgroups::each_path(&Roots::from(&facts.cgroups), |path| {
        if paths::classify(path).unknown {
            shapes.note(path);
        }
    });
    shapes.examples
}

/// What was found.
#[derive(Clone, Copy, Serialize)]
pub struct Found<'a> {
    pub facts: &'a Facts,
    pub plan: &'a Plan,
    /// What became of the programs that are to run.
    pub programs: &'a [Rehearsal],
    /// Directories of container runtimes.
    pub runtimes: &'a [Directory],
    /// What came of trying the OTLP receivers; none is configured: empty.
    pub otlp: &'a [Tried],
    pub unknown_cgroup_shapes: &'a [String],
}

impl Found<'_> {
    /// Whether cgroups have names here: the tree that the scheduler's are of is in sight.
    fn names(&self) -> bool {
        self.facts.cgroups.cpu_mount().is_some()
    }
}

#[derive(Serialize)]
struct Report<'a> {
    #[serde(flatten)]
    found: Found<'a>,
    runs: bool,
    names: bool,
}

/// Writes facts line by line, then the probes, each with what it lacks and what to do about it.
///
/// # Errors
/// When `out` cannot be written.
pub fn write_text(out: &mut impl Write, found: &Found<'_>) -> io::Result<()> {
    let Found { facts, plan, programs, runtimes, otlp, unknown_cgroup_shapes } = *found;
    let mut fact = |name: &str, value: &str| writeln!(out, "{name:<13}{value}");
    fact("kernel", &format!("{} {}", facts.kernel.release, facts.kernel.machine))?;
    fact("types (BTF)", facts.btf.error.as_deref().unwrap_or("readable"))?;
    fact("lockdown", facts.lockdown.as_deref().unwrap_or("not in sight"))?;
    fact("privileges", &privileges(facts))?;
    for (name, tree) in facts.cgroups.iter() {
        let part = if tree.whole { "" } else { ", of which only this process's own part is seen" };
        fact("cgroup tree", &format!("{name}: {}{part}", tree.mount.display()))?;
    }
    fact("pressure", &pressure(&facts.pressure))?;
    let (allowed, refused): (Vec<_>, Vec<_>) = facts.trials.iter().partition(|(_, trial)| trial.works());
    let names: Vec<_> = allowed.iter().map(|(name, _)| *name).collect();
    fact("BPF allowed", if names.is_empty() { "nothing".into() } else { names.join(", ") }.as_str())?;
    for (name, trial) in refused {
        fact("BPF refused", &format!("{name}: {}", trial.error().unwrap_or_default()))?;
    }
    let loaded: Vec<_> = programs.iter().filter(|p| p.error.is_none()).map(|p| p.probe.as_str()).collect();
    if !loaded.is_empty() {
        fact("loaded", &loaded.join(", "))?;
    }
    for directory in runtimes {
        let path = directory.path.display();
        match &directory.error {
            None => fact("runtime", &format!("{}: {path}", directory.runtime))?,
            Some(error) => fact("runtime", &format!("{path}: {error}"))?,
        }
    }
    if runtimes.is_empty() {
        fact("runtime", "no directory of one in sight")?;
    }
    writeln!(out)?;
    write_plan(out, plan)?;
    for program in programs.iter().filter(|p| p.error.is_some()) {
        writeln!(out, "✗ {:<10} does not load: this part is missing in the agent", program.probe)?;
        writeln!(out, "    {}", program.error.as_deref().unwrap_or_default())?;
        writeln!(out, "      -> {}", program.what_to_do.as_deref().unwrap_or_default())?;
    }
    write_receivers(out, otlp)?;
    write_runtimes(out, runtimes, confined().as_deref())?;
    for shape in unknown_cgroup_shapes {
        writeln!(out, "  cgroup path of no known shape: {shape}")?;
    }
    if !found.names() {
        writeln!(
            out,
            "\nNo cgroup can be named here: mount the host's /sys/fs/cgroup and name the place by --cgroup-root."
        )?;
    }
    if !plan.runs() {
        writeln!(out, "\nThe agent cannot run here: there is nothing for it to read.")?;
    }
    Ok(())
}

/// Writes which OTLP receivers take what, and what to do about those that do not.
fn write_receivers(out: &mut impl Write, all: &[Tried]) -> io::Result<()> {
    for Tried { endpoint, kinds, refused_at_start, error, what_to_do } in all {
        let (sign, word) = match error {
            None => ('✓', "reachable"),
            Some(_) if *refused_at_start => ('✗', "refused"),
            Some(_) => ('✗', "unreachable"),
        };
        let kinds = if kinds.is_empty() { String::new() } else { format!(" ({})", kinds.join(", ")) };
        writeln!(out, "{sign} {:<11}{word:<12} {}{kinds}", "otlp", Plain(endpoint))?;
        if let Some(error) = error {
            writeln!(out, "    {}", Plain(error))?;
        }
        if *refused_at_start {
            writeln!(out, "      -> the agent does not start with this: change it")?;
        }
        if let Some(what_to_do) = what_to_do {
            writeln!(out, "      -> {what_to_do}")?;
        }
    }
    Ok(())
}

/// Writes what to do about directories of runtimes that are missing or closed. `confined`: the SELinux type this process
/// is confined to.
fn write_runtimes(out: &mut impl Write, runtimes: &[Directory], confined: Option<&str>) -> io::Result<()> {
    if !runtimes.iter().any(|directory| directory.error.is_none()) {
        writeln!(
            out,
            "  no container runtime's directory can be read: pods are named by the API server alone, other"
        )?;
        writeln!(out, "  containers by their ids")?;
        writeln!(
            out,
            "      -> mount it here from the host (docs/install.md) and name it by --runtime-root"
        )?;
    }
    let closed = runtimes.iter().filter_map(|d| d.error.as_ref()).any(|e| e.contains("ermission denied"));
    if let (true, Some(kind)) = (closed, confined) {
        writeln!(out, "  SELinux confines this process to {kind}")?;
        writeln!(
            out,
            "      -> run it as spc_t (seLinuxOptions: {{type: spc_t}}), on OpenShift by a SecurityContextConstraints"
        )?;
        writeln!(out, "         that allows it (docs/install.md)")?;
    }
    Ok(())
}

/// The SELinux type of this process, if it is a container's.
fn confined() -> Option<String> {
    // system_u:system_r:container_t:s0:c1,c2
    let context = std::fs::read_to_string("/proc/self/attr/current").ok()?;
    let kind = context.split(':').nth(2)?;
    (kind.starts_with("container_") || kind == "svirt_lxc_net_t").then(|| kind.to_owned())
}

/// Writes the probes alone.
///
/// # Errors
/// When `out` cannot be written.
pub fn write_plan(out: &mut impl Write, plan: &Plan) -> io::Result<()> {
    let all = plan.probes().chain([plan.kubernetes.planned("kubernetes")]);
    all.into_iter().try_for_each(|planned| write_probe(out, planned))
}

fn write_probe(out: &mut impl Write, planned: Planned<'_>) -> io::Result<()> {
    let Planned { probe, hook, shortfalls } = planned;
    let (sign, word) = match &hook {
        Some(_) if shortfalls.is_empty() => ('✓', "working"),
        Some(_) => ('~', "degraded"),
        None => ('✗', "unavailable"),
    };
    let hook = hook.unwrap_or_default();
    writeln!(out, "{}", format!("{sign} {probe:<11}{word:<12} {hook}").trim_end())?;
    for shortfall in shortfalls {
        writeln!(out, "    {}", shortfall.why)?;
        writeln!(out, "      -> {}", shortfall.what_to_do)?;
    }
    Ok(())
}

fn privileges(facts: &Facts) -> String {
    let privileges = &facts.privileges;
    let mut text = match privileges.uid {
        0 => "root".to_string(),
        uid => format!("user {uid}"),
    };
    if privileges.capabilities.is_empty() {
        text.push_str(", no capability of use here");
    } else {
        text.push_str(" with ");
        text.push_str(&privileges.capabilities.join(", "));
    }
    if privileges.user_namespace {
        text.push_str(", in a user namespace");
    }
    if privileges.seccomp {
        text.push_str(", under a seccomp filter");
    }
    text
}

fn pressure(pressure: &Pressure) -> String {
    match pressure {
        Pressure::Works => "readable".to_string(),
        Pressure::Off => "off".to_string(),
        Pressure::NoTree => "no cgroup v2 tree in sight".to_string(),
        Pressure::Unreadable(e) => e.clone(),
    }
}
