//! The command line.

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

pub mod kernel;
pub mod target;

use crate::error::Error;
use crate::judge::finding::kebab;
use crate::judge::plan::race::Cut;
use crate::judge::plan::{MIX, Shape};
use crate::report::picture::links::SourceUrl;
use crate::target::Chosen;
use kernel::{BuildArgs, KernelArgs};

/// Races between a driver's files and its teardown: placed, replayed, explained.
#[derive(Debug, Parser)]
#[command(
    name = "knobrig",
    version,
    after_help = "Exit codes: 0 clean, 10 findings, 2 usage, 3 the machine lacks something, \
                  4 the rig itself failed, 130 interrupted."
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub verb: Verb,
}

/// The verbs.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Boot a guest and make opens, reads, writes and closes collide with rmmod.
    Run(Box<RunArgs>),
    /// Run every planted bug and every lifetime of a target: does the rig find what it must?
    Gallery(GalleryArgs),
    /// Show each rule of each lifetime as observed in a real guest.
    Lifetimes(LifetimesArgs),
    /// Run the episode of a finding again: does it show again, and how often?
    Repro(ReproArgs),
    /// Find the least that still shows a finding: actors, ops, and the order between them.
    Minimize(MinimizeArgs),
    /// Run a small program in every order of its points within a bound: is there one that fails?
    Explore(Box<ExploreArgs>),
    /// Read any kernel log and tell what it says.
    Report(ReportArgs),
    /// Set up and run the whole test suite, guests included.
    Test(TestArgs),
    /// Tell what this machine has and what it lacks.
    Doctor,
    /// Kernel images: build, show, clean.
    #[command(subcommand)]
    Image(ImageCommand),
    /// Targets: list, show, check, and a first file for a driver of yours.
    #[command(subcommand)]
    Target(target::TargetCommand),
    /// Measure the rig against a plain loop on the same image.
    #[command(subcommand)]
    Bench(BenchCommand),
    /// Run the KVM probe and print what it found.
    #[command(name = crate::engine::probe::VERB, hide = true)]
    ProbeKvm,
}

/// Which driver is under test.
#[derive(Debug, Args)]
pub struct DriverArgs {
    /// A built-in target, or a target file (.toml).
    #[arg(long, default_value = "mydrv")]
    pub target: String,
    /// The rule by which the module may be unloaded [default: the target's first].
    #[arg(long)]
    pub lifetime: Option<String>,
    /// A planted bug of the target.
    #[arg(long)]
    pub mutant: Option<String>,
    /// A directory with a module's sources, or one with several such directories: built, in C by
    /// kbuild, in Rust with the crates of its Cargo.toml, it takes the place of the target's module
    /// of that name.
    #[arg(long, value_name = "DIR")]
    pub module_dir: Vec<PathBuf>,
}

impl DriverArgs {
    /// The one that was asked for.
    ///
    /// # Errors
    /// There is no such target, lifetime or mutant, or its file has a mistake.
    pub fn choose(&self) -> Result<Chosen, Error> {
        Chosen::find(
            &self.target,
            self.lifetime.as_deref(),
            self.mutant.as_deref(),
        )
    }
}

/// What is written for others, beside what is printed.
#[derive(Debug, Args)]
pub struct BesideArgs {
    /// Write the outcome for another program, too: FORMAT is markdown, junit, sarif, ktap or
    /// github, FILE may be `-`; may be repeated.
    #[arg(long = "report", value_name = "FORMAT=FILE")]
    pub reports: Vec<ReportTo>,
    /// Where index.html leads for a line of the kernel's source: an http or https URL in which
    /// {version}, {file} and {line} are filled in.
    #[arg(
        long,
        env = "KNOBRIG_SOURCE_URL",
        default_value_t,
        hide_default_value = true
    )]
    pub source_url: SourceUrl,
}

/// `run`
#[derive(Debug, Args)]
pub struct RunArgs {
    /// The driver under test.
    #[command(flatten)]
    pub driver: DriverArgs,
    /// How long episodes run, from the first guest's start: 90s, 10m, 2h.
    #[arg(long, default_value = "60s", conflicts_with = "episodes")]
    pub duration: Span,
    /// How many episodes run.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    pub episodes: Option<u64>,
    /// Decides every episode, with what the episodes before it showed [default: random].
    #[arg(long)]
    pub seed: Option<u64>,
    /// vCPUs of the guest [default: the target's, else 2].
    #[arg(long, value_parser = clap::value_parser!(u32).range(2..=8))]
    pub cpus: Option<u32>,
    /// Memory of the guest in MiB.
    #[arg(long, default_value_t = 512, value_parser = clap::value_parser!(u32).range(256..=65536))]
    pub memory: u32,
    /// Which kernel.
    #[command(flatten)]
    pub kernel: KernelArgs,
    /// How guest code runs; auto takes KVM where it truly works.
    #[arg(long, value_enum, default_value = "auto")]
    pub accel: AccelChoice,
    /// Where the run is kept [default: knobrig-out/TIME-TARGET].
    #[arg(long)]
    pub out: Option<PathBuf>,
    /// How the summary is printed.
    #[arg(long, value_enum, default_value = "human")]
    pub format: Format,
    /// What is written beside the summary.
    #[command(flatten)]
    pub beside: BesideArgs,
    /// Stop at the first finding.
    #[arg(long)]
    pub fail_fast: bool,
    /// Only episodes of these shapes: gated, placed, stress, birth, hasty, counts, unbind,
    /// elsewhere, late, probe-fails, delays, loops [default: a mix of all].
    #[arg(long, value_delimiter = ',', value_parser = shape)]
    pub shapes: Vec<Shape>,
    /// No progress, only the summary.
    #[arg(long, short)]
    pub quiet: bool,
}

/// A shape by its name, of those that are in the mix.
fn shape(name: &str) -> Result<Shape, String> {
    let shapes = MIX.iter().map(|(shape, _)| *shape).chain([Shape::Loops]);
    let known: Vec<_> = shapes.map(|shape| (kebab(&shape), shape)).collect();
    let found = known.iter().find(|(it, _)| it == name);
    found.map(|(_, shape)| *shape).ok_or_else(|| {
        let names: Vec<_> = known.iter().map(|(name, _)| name.as_str()).collect();
        format!("there are {}", names.join(", "))
    })
}

/// `gallery`
#[derive(Debug, Args)]
pub struct GalleryArgs {
    /// A built-in target, or a target file (.toml).
    #[arg(long, default_value = "mydrv")]
    pub target: String,
    /// Only these mutants and lifetimes.
    #[arg(long, value_delimiter = ',')]
    pub only: Vec<String>,
    /// How many seeds each is run with.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=1000))]
    pub seeds: u64,
    /// The first seed [default: random].
    #[arg(long)]
    pub seed: Option<u64>,
    /// The longest that a mutant may hide, boot included.
    #[arg(long, default_value = "120s")]
    pub budget: Span,
    /// How many episodes of a lifetime must be clean.
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u64).range(1..))]
    pub episodes: u64,
    /// Run each mutant under every kernel variant, from the cheapest on, and tell which see it.
    #[arg(long)]
    pub ladder: bool,
    /// How guest code runs; auto takes KVM where it truly works.
    #[arg(long, value_enum, default_value = "auto")]
    pub accel: AccelChoice,
    /// Where the scoreboard and the runs are kept [default: knobrig-out/TIME-gallery].
    #[arg(long)]
    pub out: Option<PathBuf>,
    /// How the scoreboard is printed.
    #[arg(long, value_enum, default_value = "human")]
    pub format: Format,
    /// What is written beside the scoreboard.
    #[command(flatten)]
    pub beside: BesideArgs,
}

/// `lifetimes`
#[derive(Debug, Args)]
pub struct LifetimesArgs {
    /// A built-in target, or a target file (.toml).
    #[arg(long, default_value = "mydrv")]
    pub target: String,
    /// Only these.
    #[arg(long, value_delimiter = ',')]
    pub only: Vec<String>,
    /// Episodes of each.
    #[arg(long, default_value_t = 150, value_parser = clap::value_parser!(u64).range(1..))]
    pub episodes: u64,
    /// Decides every episode [default: random].
    #[arg(long)]
    pub seed: Option<u64>,
    /// The kernel's variant.
    #[arg(long, default_value = "kasan")]
    pub variant: VariantArg,
    /// How guest code runs; auto takes KVM where it truly works.
    #[arg(long, value_enum, default_value = "auto")]
    pub accel: AccelChoice,
    /// How the table is printed.
    #[arg(long, value_enum, default_value = "human")]
    pub format: Format,
}

/// A finding whose episode runs again.
#[derive(Debug, Args)]
pub struct CaseArgs {
    /// A finding's directory, its finding.json, a reproducer.json alone, or a run with one finding.
    pub finding: PathBuf,
    /// A target file (.toml) in place of the target that the finding names.
    #[arg(long)]
    pub target: Option<String>,
    /// In place of the kernel that the finding names.
    #[command(flatten)]
    pub kernel: KernelArgs,
    /// How guest code runs; auto takes KVM where it truly works.
    #[arg(long, value_enum, default_value = "auto")]
    pub accel: AccelChoice,
    /// What holds vCPUs where the finding's episode orders instructions.
    #[arg(long, value_enum, default_value = "auto")]
    pub vcpu: VcpuChoice,
}

/// `repro`
#[derive(Debug, Args)]
pub struct ReproArgs {
    /// What is run again, and how.
    #[command(flatten)]
    pub case: CaseArgs,
    /// How often the episode runs at most.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    pub times: u64,
    /// Go on when it has shown: how often does it, of all the times?
    #[arg(long)]
    pub keep_going: bool,
    /// The same episode on the same lifetime without the mutant: must show nothing.
    #[arg(long)]
    pub correct: bool,
    /// Where the runs are kept [default: knobrig-out/TIME-TARGET-repro].
    #[arg(long)]
    pub out: Option<PathBuf>,
    /// How the result is printed.
    #[arg(long, value_enum, default_value = "human")]
    pub format: Format,
}

/// `minimize`
#[derive(Debug, Args)]
pub struct MinimizeArgs {
    /// What is run again, and how.
    #[command(flatten)]
    pub case: CaseArgs,
    /// How often in a row what is left must show it.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=1000))]
    pub tries: u64,
    /// How often the minimal episode runs without each of its edges, to show that the edge is
    /// needed.
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..))]
    pub proof: u64,
    /// Where the result is kept [default: knobrig-out/TIME-TARGET-minimize].
    #[arg(long)]
    pub out: Option<PathBuf>,
    /// How the result is printed.
    #[arg(long, value_enum, default_value = "human")]
    pub format: Format,
}

/// `explore`
#[derive(Debug, Args)]
pub struct ExploreArgs {
    /// The driver under test.
    #[command(flatten)]
    pub driver: DriverArgs,
    /// What two or three actors do: actors apart by ||, their ops (open, read or write of a knob; the
    /// teardown, or unbind) by commas [default: read of the first knob || the teardown].
    #[arg(long)]
    pub program: Option<String>,
    /// The most switches from an actor that could go on.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(0..=8))]
    pub bound: u32,
    /// Where actors may be switched, beside between their system calls: at requests of the device,
    /// at doors between kernel and driver, at own calls of the driver's, at functions by their names.
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "device,doors",
        value_name = "device,doors,own,FUNCTION"
    )]
    pub points: Vec<Cut>,
    /// Memory of the guest in MiB.
    #[arg(long, default_value_t = 512, value_parser = clap::value_parser!(u32).range(256..=65536))]
    pub memory: u32,
    /// Which kernel.
    #[command(flatten)]
    pub kernel: KernelArgs,
    /// How guest code runs; auto takes KVM where it truly works.
    #[arg(long, value_enum, default_value = "auto")]
    pub accel: AccelChoice,
    /// Where the exploration is kept [default: knobrig-out/TIME-TARGET-explore].
    #[arg(long, conflicts_with = "resume")]
    pub out: Option<PathBuf>,
    /// Go on with the exploration that is kept there: same target, program, bound and points.
    #[arg(long, value_name = "DIR", conflicts_with_all = ["program", "lifetime", "mutant", "module_dir"])]
    pub resume: Option<PathBuf>,
    /// How the summary is printed.
    #[arg(long, value_enum, default_value = "human")]
    pub format: Format,
    /// Stop at the first finding.
    #[arg(long)]
    pub fail_fast: bool,
    /// No progress, only the summary.
    #[arg(long, short)]
    pub quiet: bool,
}

/// `report`
#[derive(Debug, Args)]
pub struct ReportArgs {
    /// Console logs, plain or compressed (gz, zst, xz); `-` is standard input.
    #[arg(required = true)]
    pub logs: Vec<PathBuf>,
    /// The kernel that wrote the logs, with debug information: frames get their file:line.
    #[arg(long, value_name = "FILE")]
    pub vmlinux: Option<PathBuf>,
    /// Its modules, likewise: a module, or a directory that is searched for them; may be repeated.
    #[arg(long, value_name = "DIR|FILE")]
    pub modules: Vec<PathBuf>,
    /// How the reports are written.
    #[arg(long, value_enum, default_value = "human")]
    pub format: ReportFormat,
    /// Write to this file instead of standard output.
    #[arg(long)]
    pub out: Option<PathBuf>,
}

/// How cases, of whatever, are written for other programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum CaseFormat {
    /// For issues and step summaries.
    Markdown,
    /// For CI systems.
    Junit,
    /// For code scanning.
    Sarif,
    /// As the kernel's own tests.
    Ktap,
    /// Annotations of a GitHub workflow.
    Github,
}

/// A report that is asked for beside the summary: `FORMAT=FILE`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReportTo {
    /// How it is written.
    pub format: CaseFormat,
    /// Where to; `-` is standard output.
    pub path: PathBuf,
}

impl FromStr for ReportTo {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let names = || {
            let all = CaseFormat::value_variants().iter();
            let all = all.filter_map(ValueEnum::to_possible_value);
            all.map(|it| it.get_name().to_owned())
                .collect::<Vec<_>>()
                .join(", ")
        };
        let wrong = || format!("FORMAT=FILE is expected, FORMAT one of {}", names());
        let (format, path) = text.split_once('=').ok_or_else(wrong)?;
        let format = CaseFormat::from_str(format, false).map_err(|_| wrong())?;
        match path {
            "" => Err(wrong()),
            path => Ok(Self {
                format,
                path: path.into(),
            }),
        }
    }
}

/// How reports are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ReportFormat {
    /// For people.
    Human,
    /// One versioned object per log, on one line.
    Json,
    /// For issues and step summaries.
    Markdown,
    /// For CI systems.
    Junit,
    /// For code scanning.
    Sarif,
    /// As the kernel's own tests.
    Ktap,
    /// Annotations of a GitHub workflow.
    Github,
}

/// `test`
#[derive(Debug, Args)]
pub struct TestArgs {
    /// Passed on to `cargo test`.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub rest: Vec<String>,
}

/// `image`
#[derive(Debug, Subcommand)]
pub enum ImageCommand {
    /// Build a kernel, or tell that it is there.
    Build {
        /// Which.
        #[command(flatten)]
        kernel: BuildArgs,
        /// Call it so, for `--image`.
        #[arg(long)]
        name: Option<String>,
    },
    /// List what the cache holds: size, age, kernel, options, names.
    #[command(visible_alias = "ls")]
    Show,
    /// Check a kernel that was built elsewhere: what its configuration lacks, and what that costs.
    Check {
        /// A bzImage or vmlinux.
        kernel: PathBuf,
        /// Its vmlinux, with symbols.
        #[arg(long, value_name = "FILE")]
        vmlinux: Option<PathBuf>,
        /// A directory with its modules.
        #[arg(long, value_name = "DIR")]
        modules: Option<PathBuf>,
        /// Its configuration, where neither the kernel nor a file beside it tells it.
        #[arg(long, value_name = "FILE")]
        kernel_config: Option<PathBuf>,
    },
    /// Free what no current source makes use of.
    Clean {
        /// Free everything.
        #[arg(long)]
        all: bool,
    },
}

/// `bench`
#[derive(Debug, Subcommand)]
pub enum BenchCommand {
    /// The time to a target's first finding, against four plain loops on the same image, in turns.
    Find(Box<FindArgs>),
    /// The time to the first finding of each planted bug: the rig, its own loops without gates, and a
    /// loop as in a shell, in turns.
    Detect(Box<DetectArgs>),
    /// The overlap ratio of gates against a plain loop, and episodes per second.
    Overlap {
        /// Lifetime of mydrv.
        #[arg(long, default_value = "drained")]
        lifetime: String,
        /// Rounds; each runs both, one after the other.
        #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
        rounds: u32,
        /// How long each side of a round runs.
        #[arg(long, default_value = "20s")]
        duration: Span,
        /// The kernel's variant.
        #[arg(long, default_value = "kasan")]
        variant: VariantArg,
        /// How guest code runs.
        #[arg(long, value_enum, default_value = "auto")]
        accel: AccelChoice,
        /// How the result is printed.
        #[arg(long, value_enum, default_value = "human")]
        format: Format,
    },
}

/// `bench find`
#[derive(Debug, Args)]
pub struct FindArgs {
    /// A built-in target, or a target file (.toml), of which a finding is known.
    #[arg(long)]
    pub target: String,
    /// Seeds; each is run by the rig and by the loops, one after the other.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=100))]
    pub seeds: u64,
    /// The longest that either may look for it.
    #[arg(long, default_value = "60s")]
    pub budget: Span,
    /// The rig runs only episodes of these shapes, as `run --shapes` has them [default: a mix of all].
    #[arg(long, value_delimiter = ',', value_parser = shape)]
    pub shapes: Vec<Shape>,
    /// Which kernel.
    #[command(flatten)]
    pub kernel: KernelArgs,
    /// How guest code runs.
    #[arg(long, value_enum, default_value = "auto")]
    pub accel: AccelChoice,
    /// How the result is printed.
    #[arg(long, value_enum, default_value = "human")]
    pub format: Format,
}

/// `bench detect`
#[derive(Debug, Args)]
pub struct DetectArgs {
    /// A built-in target, or a target file (.toml).
    #[arg(long, default_value = "mydrv")]
    pub target: String,
    /// Only these mutants [default: all].
    #[arg(long, value_delimiter = ',')]
    pub mutants: Vec<String>,
    /// Seeds; with each, every side looks for each mutant once.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=1000))]
    pub seeds: u64,
    /// The longest that a side may look for one.
    #[arg(long, default_value = "60s")]
    pub budget: Span,
    /// How guest code runs; auto takes KVM where it truly works.
    #[arg(long, value_enum, default_value = "auto")]
    pub accel: AccelChoice,
    /// Where detect.json and detect.svg are kept [default: knobrig-out/TIME-detect].
    #[arg(long, conflicts_with = "resume")]
    pub out: Option<PathBuf>,
    /// Go on with the benchmark that is kept there, with the same mutants, budget and kernel: after an
    /// interruption, or up to more seeds.
    #[arg(long, value_name = "DIR", conflicts_with_all = ["target", "mutants", "budget"])]
    pub resume: Option<PathBuf>,
    /// How the result is printed.
    #[arg(long, value_enum, default_value = "human")]
    pub format: Format,
}

/// How guest code is to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum AccelChoice {
    /// KVM where it truly works, else TCG.
    Auto,
    /// KVM or an error.
    Kvm,
    /// Translated.
    Tcg,
}

/// What is to hold vCPUs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum VcpuChoice {
    /// Under TCG the plugin where QEMU loads it, else the gdbstub.
    Auto,
    /// QEMU's plugin, which works under TCG, or an error.
    Plugin,
    /// QEMU's gdbstub, slower, which delays nothing.
    Gdb,
    /// Nothing.
    Off,
}

/// How a result is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people.
    Human,
    /// One versioned object on one line.
    Json,
}

/// A kernel variant on the command line.
#[derive(Clone, Copy, Debug)]
pub struct VariantArg(pub knobrig_images::Variant);

impl FromStr for VariantArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        text.parse()
            .map(Self)
            .map_err(|_| "one of kasan, debug, release is expected".to_owned())
    }
}

/// A time span on the command line: a number and s, m, h or d.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span(pub Duration);

impl FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is no time span; write 90s, 10m, 2h or 1d");
        let split = text
            .find(|c: char| !c.is_ascii_digit())
            .unwrap_or(text.len());
        let number: u64 = text[..split].parse().map_err(|_| wrong())?;
        let unit = match &text[split..] {
            "s" | "" => 1,
            "m" => 60,
            "h" => 3600,
            "d" => 86_400,
            _ => return Err(wrong()),
        };
        match number.checked_mul(unit) {
            // A year: the clock's arithmetic must not overflow.
            Some(seconds @ 1..=31_536_000) => Ok(Self(Duration::from_secs(seconds))),
            _ => Err(format!("{text:?}: between 1s and 365d are possible")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_report_has_a_format_and_a_file() {
        let report = ReportTo {
            format: CaseFormat::Junit,
            path: "a=b.xml".into(),
        };
        assert_eq!("junit=a=b.xml".parse(), Ok(report));
        for wrong in ["", "junit", "junit=", "=x", "pdf=x"] {
            let error = wrong.parse::<ReportTo>().expect_err(wrong);
            assert!(
                error.contains("markdown, junit, sarif, ktap, github"),
                "{error}"
            );
        }
    }

    #[test]
    fn spans_are_read_and_nonsense_is_told() {
        assert_eq!("90s".parse(), Ok(Span(Duration::from_secs(90))));
        assert_eq!("2h".parse(), Ok(Span(Duration::from_secs(7200))));
        for wrong in ["", "s", "0s", "-1s", "1w", "99999999999999999999s", "400d"] {
            assert!(wrong.parse::<Span>().is_err(), "{wrong}");
        }
    }
}
