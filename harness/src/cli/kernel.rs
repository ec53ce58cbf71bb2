//! The options that say which kernel runs.

use std::path::PathBuf;

use clap::Args;
use knobrig_images::{Given, KernelRequest, KernelSource, Variant};

use super::VariantArg;

/// What a kernel is built from, and how.
#[derive(Clone, Debug, Args)]
pub struct BuildArgs {
    /// The kernel: kasan, debug (kasan and the heavy checkers), release (debug and delayed
    /// kobject release) [default: kasan].
    #[arg(long)]
    pub variant: Option<VariantArg>,
    /// Build the kernel from this tree or tarball instead of the pinned source.
    #[arg(long, value_name = "DIR|TARBALL")]
    pub kernel_source: Option<PathBuf>,
    /// Build this release of Debian's linux-source packages: 6.1.170, or 6.1 for the newest.
    #[arg(long, value_name = "VERSION", conflicts_with = "kernel_source")]
    pub kernel_version: Option<String>,
    /// A fragment of a kernel configuration, merged over the variant's; may be given again.
    #[arg(long = "config", value_name = "FRAGMENT")]
    pub fragments: Vec<PathBuf>,
}

impl BuildArgs {
    /// As the builder takes it; of this variant where none is asked for.
    pub fn request(&self, usual: Variant) -> KernelRequest {
        let source = match (&self.kernel_source, &self.kernel_version) {
            (Some(path), _) => KernelSource::Own(path.clone()),
            (None, Some(version)) => KernelSource::Version(version.clone()),
            (None, None) => KernelSource::Pinned,
        };
        KernelRequest {
            variant: self.variant.map_or(usual, |asked| asked.0),
            source,
            fragments: self.fragments.clone(),
        }
    }
}

/// Which kernel runs.
#[derive(Clone, Debug, Args)]
pub struct KernelArgs {
    /// To be built, unless it is there.
    #[command(flatten)]
    pub build: BuildArgs,
    /// An image of the cache by its name or id (`image ls`).
    #[arg(long, value_name = "NAME", conflicts_with_all = ["variant", "kernel_source", "kernel_version", "fragments", "kernel"])]
    pub image: Option<String>,
    /// A kernel that you have built: a bzImage, or a vmlinux with a PVH entry; x86-64, 5.15 or
    /// newer.
    #[arg(long, value_name = "BZIMAGE", conflicts_with_all = ["variant", "kernel_source", "kernel_version", "fragments"])]
    pub kernel: Option<PathBuf>,
    /// Its vmlinux, with symbols.
    #[arg(long, value_name = "FILE", requires = "kernel")]
    pub vmlinux: Option<PathBuf>,
    /// A directory with its modules, such as /lib/modules/VERSION.
    #[arg(long, value_name = "DIR", requires = "kernel")]
    pub modules: Option<PathBuf>,
    /// Its configuration, where neither the kernel nor a file beside it tells it.
    #[arg(long, value_name = "FILE", requires = "kernel")]
    pub kernel_config: Option<PathBuf>,
}

/// Which kernel was asked for.
#[derive(Clone, Debug)]
pub enum KernelChoice {
    /// Built here, now or before.
    Built(KernelRequest),
    /// An image of the cache by name or id.
    Named(String),
    /// Built by somebody else.
    Given(Given),
}

impl KernelArgs {
    /// The one that was asked for, or else the pinned kernel.
    pub fn choice(&self) -> KernelChoice {
        let usual = Variant::Kasan;
        let pinned = || KernelChoice::Built(self.build.request(usual));
        self.asked(usual).unwrap_or_else(pinned)
    }

    /// The one that was asked for, if any was; where it is to be built and no variant was asked for,
    /// of this one.
    pub fn asked(&self, usual: Variant) -> Option<KernelChoice> {
        match (&self.kernel, &self.image) {
            (Some(image), _) => Some(KernelChoice::Given(Given {
                image: image.clone(),
                vmlinux: self.vmlinux.clone(),
                modules: self.modules.clone(),
                config: self.kernel_config.clone(),
            })),
            (None, Some(name)) => Some(KernelChoice::Named(name.clone())),
            (None, None) => {
                let build = &self.build;
                let any = build.variant.is_some()
                    || build.kernel_source.is_some()
                    || build.kernel_version.is_some()
                    || !build.fragments.is_empty();
                any.then(|| KernelChoice::Built(build.request(usual)))
            }
        }
    }
}
