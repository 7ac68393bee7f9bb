//! The command line of `bench compare`, so of `bench/run`.

use std::path::PathBuf;

use clap::ValueEnum;

use super::Error;
use super::foreign::Tool;
use super::subject::Subject;
use super::workload::Workload;

/// Measures subjects beside one another.
#[derive(clap::Args, Clone, Debug)]
#[command(after_long_help = EXAMPLES)]
pub(crate) struct Arguments {
    /// The kinds of work, or `all`
    #[arg(long, value_delimiter = ',', default_values = ["get-32", "get-128"], value_parser = Workloads::parse)]
    pub(super) workload: Vec<Workloads>,
    /// ringway, ringway-epoll, haproxy, nginx, envoy, relay, glommio (a relay), direct; another build of one: new=ringway@PATH
    #[arg(long, value_delimiter = ',', value_name = "[NAME=]KIND[@PROGRAM]",
          default_values = ["ringway", "ringway-epoll", "haproxy", "nginx", "envoy", "relay"])]
    pub(super) subjects: Vec<Subject>,
    #[arg(long, default_value_t = 5)]
    pub(super) rounds: usize,
    /// How long each measurement takes, in seconds
    #[arg(long, default_value_t = 3.0)]
    pub(super) seconds: f64,
    /// How long each is warmed up, in seconds
    #[arg(long, default_value_t = 1.0)]
    pub(super) warm: f64,
    /// The subject that ratios are to, measured twice in each round [default: haproxy, else the first]
    #[arg(long, value_name = "NAME")]
    pub(super) baseline: Option<String>,
    /// Workload `prefixes`: how many routes there are; the last one is hit
    #[arg(long, default_value_t = 1000)]
    pub(super) routes: usize,
    /// Workload `idle`: connections that say nothing; fewer where the descriptors do not suffice
    #[arg(long, default_value_t = 10_000)]
    pub(super) idle: usize,
    /// Workload `latency`: the part of what a subject can do that it is given to do
    #[arg(long, default_value_t = 0.3)]
    pub(super) share: f64,
    /// Workloads `workers-…`: threads of each subject that serve connections
    #[arg(long, default_value_t = 2)]
    pub(super) workers: usize,
    /// Workload `latency`: requests per second for everybody, instead of --share. Workloads `workers-…`: instead of 8,000
    #[arg(long)]
    pub(super) rate: Option<f64>,
    /// Wait for a moment in which others have at most this part of the machine, in percent, and measure again (ten times at
    /// most) what they disturbed
    #[arg(long, value_name = "PERCENT")]
    pub(super) others_max: Option<f64>,
    /// Have these put the keep-alive GETs on the subjects too, as their users would (deploy/setup.sh load gets them)
    #[arg(long, value_enum, value_delimiter = ',', value_name = "TOOLS")]
    pub(super) with: Vec<Tool>,
    /// Count this subject's instructions per request instead, under valgrind
    #[arg(long, value_name = "SUBJECT")]
    pub(super) callgrind: Option<Subject>,
    /// With --callgrind: fail when a count is more than 2 % above the recorded one
    #[arg(long, requires = "callgrind")]
    pub(super) check: bool,
    /// With --callgrind: record the counts, and why they have changed
    #[arg(long, requires = "callgrind", conflicts_with = "check", value_name = "REASON")]
    pub(super) record: Option<String>,
    /// Where counts of instructions are recorded
    #[arg(long, default_value = "perf/instructions.jsonl")]
    pub(super) instructions: PathBuf,
    /// Count this subject's system calls per request instead, under strace
    #[arg(long, value_name = "SUBJECT")]
    pub(super) syscalls: Option<Subject>,
    /// The subject's core
    #[arg(long, default_value_t = 0)]
    pub(super) proxy_core: usize,
    /// The core of origin and load
    #[arg(long, default_value_t = 1)]
    pub(super) load_core: usize,
    /// The program of ringway and ringway-epoll
    #[arg(long, default_value = "target/release/ringway-proxy")]
    pub(super) ringway_proxy: PathBuf,
    /// The folder with envoy, haproxy and nginx
    #[arg(long, default_value = ".cache/peers/bin")]
    pub(super) peers: PathBuf,
    /// The program of glommio
    #[arg(long, default_value = "target/glommio/release/relay-on-glommio")]
    pub(super) relay_on_glommio: PathBuf,
    /// Seed of the order; printed, so that an order can be had again
    #[arg(long)]
    pub(super) seed: Option<u64>,
}

const EXAMPLES: &str = "Examples:
  bench/run                                             small GETs beside everybody, five minutes
  bench/run --workload all --rounds 3 --seconds 1       everything, ten minutes; `make bench`
  bench/run --workload get-32,post-4k --subjects ringway,haproxy,relay --rounds 9 > numbers.jsonl
  bench/run --subjects ringway,new=ringway@/tmp/new/ringway-proxy --baseline ringway    two builds
  bench/run --workload get-32,prefixes --routes 5000    does the number of routes cost anything?
  bench/run --workload latency --subjects ringway,haproxy,envoy --baseline envoy
  bench/run --workload workers-even,workers-uneven --workers 2 --subjects ringway,haproxy,envoy
  bench/run --with wrk,h2load,fortio --rounds 1         the same with the tools of others
  bench/run --callgrind ringway-epoll --check           has a request become dearer?
  bench/run --callgrind ringway-epoll --record 'limits are checked per header now'
  bench/run --syscalls ringway --workload get-128

Times need a quiet machine with two cores; instructions and system calls do not.";

/// What one word of `--workload` names.
#[derive(Clone, Debug)]
pub(super) struct Workloads(Vec<Workload>);

impl Workloads {
    fn parse(word: &str) -> Result<Self, String> {
        if word == "all" {
            return Ok(Self(Workload::value_variants().to_vec()));
        }
        let names = || Workload::value_variants().iter().map(|w| w.name()).collect::<Vec<_>>().join(", ");
        Workload::from_str(word, false)
            .map(|workload| Self(vec![workload]))
            .map_err(|_| format!("no workload is called that; there are: {}, all", names()))
    }
}

impl Arguments {
    /// The workloads, each once, those of one setup together.
    pub(super) fn workloads(&self) -> Vec<Workload> {
        let mut workloads: Vec<Workload> = self.workload.iter().flat_map(|w| w.0.iter().copied()).collect();
        workloads.sort_by_key(|workload| (workload.setup(), *workload));
        workloads.dedup();
        workloads
    }

    /// The subject that ratios are to. Names are what records are told apart by, so each must be there once.
    pub(super) fn baseline(&self) -> Result<&Subject, Error> {
        for (number, subject) in self.subjects.iter().enumerate() {
            if self.subjects[..number].iter().any(|other| other.name == subject.name) {
                return Err(Error::SameName { name: subject.name.clone() });
            }
        }
        let named = |name: &str| self.subjects.iter().find(|subject| subject.name == name);
        let found = match &self.baseline {
            Some(name) => named(name),
            None => named("haproxy").or(self.subjects.first()),
        };
        found.ok_or_else(|| Error::NoBaseline {
            name: self.baseline.clone().unwrap_or_default(),
            subjects: self
                .subjects
                .iter()
                .map(|subject| subject.name.as_str())
                .collect::<Vec<_>>()
                .join(", "),
        })
    }
}

#[cfg(test)]
mod tests {
    use clap::{Args, FromArgMatches};

    use super::*;

    fn parse(words: &[&str]) -> Result<Arguments, clap::Error> {
        let command = Arguments::augment_args(clap::Command::new("bench"));
        Arguments::from_arg_matches(&command.try_get_matches_from([&["bench"], words].concat())?)
    }

    #[test]
    fn workloads_come_once_and_setup_by_setup() {
        let workloads = |words: &str| parse(&["--workload", words]).unwrap().workloads();
        let expected = [Workload::Get32, Workload::Get64k, Workload::Prefixes];
        assert_eq!(workloads("prefixes,get-64k,get-32,get-64k"), expected);
        assert_eq!(workloads("get-32,all").len(), Workload::value_variants().len());
        assert!(parse(&["--workload", "get-33"]).is_err());
    }

    #[test]
    fn the_baseline_is_haproxy_or_whom_one_names() {
        let baseline = |words: &[&str]| parse(words).unwrap().baseline().map(|s| s.name.clone()).ok();
        assert_eq!(baseline(&[]).as_deref(), Some("haproxy"));
        assert_eq!(baseline(&["--subjects", "relay,direct"]).as_deref(), Some("relay"));
        assert_eq!(baseline(&["--baseline", "envoy"]).as_deref(), Some("envoy"));
        assert_eq!(baseline(&["--subjects", "relay", "--baseline", "envoy"]), None);
        assert_eq!(baseline(&["--subjects", "relay,relay"]), None);
        assert!(parse(&["--check"]).is_err());
    }
}
