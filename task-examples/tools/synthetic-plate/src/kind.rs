//! What makes a plate easy or hard to segment, in numbers.

use clap::ValueEnum;

/// How hard it is to find the nuclei.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    /// Bright nuclei with gaps of 6 pixels and more.
    Easy,
    /// Many dim nuclei of different brightness, of which a third and more touch or overlap a
    /// little.
    Crowded,
}

/// The numbers of a kind.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Settings {
    /// Nuclei in 256 x 256 pixels, without and with a full response to the dose.
    pub(crate) n_nuclei: [f64; 2],
    /// Least gap between nuclei, but for those that are put beside another.
    pub(crate) gap: f64,
    /// The share of nuclei that are put beside another.
    pub(crate) joined: f64,
    /// The gap to the nucleus beside, lowest and highest: negative if they overlap.
    pub(crate) joined_gap: [f64; 2],
    /// Light of a nucleus of mean size.
    pub(crate) nucleus_light: f64,
    /// By how much the light of nuclei differs: 0.2 for 0.8 to 1.2 times of what their size asks
    /// for.
    pub(crate) scatter: f64,
    /// How much brighter larger nuclei are: their light goes with this power of the radius.
    pub(crate) size_power: f64,
    /// Light of the cytoplasm.
    pub(crate) cytoplasm_light: f64,
    /// The mean radius of the cytoplasm, in that of the nucleus.
    pub(crate) cytoplasm_size: f64,
    /// Counts for each detected photon: shot noise is the root of counts times this.
    pub(crate) gain: f64,
    /// Standard deviation of the camera's own noise, in counts.
    pub(crate) read_noise: f64,
}

impl Kind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Easy => "easy",
            Self::Crowded => "crowded",
        }
    }

    pub(crate) fn settings(self) -> Settings {
        match self {
            Self::Easy => Settings {
                n_nuclei: [37.0, 18.0],
                gap: 6.0,
                joined: 0.0,
                joined_gap: [0.0, 0.0],
                nucleus_light: 2400.0,
                scatter: 0.12,
                size_power: 1.0,
                cytoplasm_light: 1100.0,
                cytoplasm_size: 1.75,
                gain: 0.4,
                read_noise: 2.5,
            },
            Self::Crowded => Settings {
                n_nuclei: [86.0, 64.0],
                gap: 1.5,
                joined: 0.25,
                joined_gap: [-2.5, 0.5],
                nucleus_light: 700.0,
                scatter: 0.18,
                size_power: 1.5,
                cytoplasm_light: 550.0,
                cytoplasm_size: 1.5,
                gain: 1.5,
                read_noise: 8.0,
            },
        }
    }
}
