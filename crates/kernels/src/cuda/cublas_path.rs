//! Where cuBLAS may lie: NVIDIA's matrix products are not shipped, so they are looked for.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::{env, fs};

/// Names folders in which the libraries are looked for first, separated as in the PATH.
pub(super) const VARIABLE: &str = "PREFIXKV_CUDA_LIBRARIES";

/// Major versions whose functions are those that are called here, the wanted one first.
pub(super) const VERSIONS: [u32; 2] = [13, 12];

/// The library and the one that it needs, by the names under which the system's loader knows them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Names {
    pub(super) library: String,
    pub(super) needed: String,
}

impl Names {
    pub(super) fn of(version: u32) -> Self {
        if cfg!(windows) {
            Names { library: format!("cublas64_{version}.dll"), needed: format!("cublasLt64_{version}.dll") }
        } else {
            Names { library: format!("libcublas.so.{version}"), needed: format!("libcublasLt.so.{version}") }
        }
    }
}

/// A library that can be opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Candidate {
    /// By its name, wherever the system's loader finds it.
    System(Names),
    /// In a folder.
    Files { library: PathBuf, needed: Option<PathBuf> },
}

/// Candidates in the order of trial, and the places where else was looked.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) candidates: Vec<Candidate>,
    /// Every folder that was looked into.
    pub(super) folders: Vec<PathBuf>,
    /// Libraries of versions that cannot be used.
    pub(super) unfit: Vec<PathBuf>,
}

/// Folders by the environment: those that were named for this, and those where toolkits and wheels are.
struct Places {
    named: Vec<PathBuf>,
    usual: Vec<PathBuf>,
}

impl Places {
    fn of(variable: impl Fn(&str) -> Option<OsString>) -> Self {
        let variable = |name: &str| variable(name).filter(|value| !value.is_empty());
        let named = variable(VARIABLE).map(|value| env::split_paths(&value).collect()).unwrap_or_default();
        let inside = |root: PathBuf| -> Vec<PathBuf> {
            let folders: &[&str] =
                if cfg!(windows) { &["bin", "bin/x64", "lib", "lib/x64"] } else { &["lib64", "lib"] };
            folders.iter().map(|folder| root.join(folder)).collect()
        };
        let mut usual: Vec<PathBuf> =
            ["CUDA_HOME", "CUDA_PATH"].into_iter().filter_map(&variable).map(PathBuf::from).flat_map(inside).collect();
        if !cfg!(windows) {
            usual.push("/usr/local/cuda/lib64".into());
        }
        let mut roots: Vec<PathBuf> =
            ["VIRTUAL_ENV", "CONDA_PREFIX"].into_iter().filter_map(&variable).map(PathBuf::from).collect();
        // An environment whose Python is found by the PATH alone, as in containers.
        roots.extend(variable("PATH").map(|path| python_roots(&path)).unwrap_or_default());
        roots = roots
            .iter()
            .enumerate()
            .filter(|(i, root)| !roots[..*i].contains(root))
            .map(|(_, root)| root.clone())
            .collect();
        for root in roots {
            for packages in site_packages(&root) {
                let nvidia = packages.join("nvidia");
                let part = if cfg!(windows) { "bin" } else { "lib" };
                usual.extend([nvidia.join("cu13").join(part), nvidia.join("cublas").join(part)]);
                if cfg!(windows) {
                    usual.push(nvidia.join("cu13/bin/x86_64"));
                }
            }
            // Conda's own packages of the toolkit.
            usual.push(root.join(if cfg!(windows) { "Library/bin" } else { "lib" }));
        }
        Places { named, usual }
    }
}

/// The environments whose Python a PATH finds.
fn python_roots(path: &OsStr) -> Vec<PathBuf> {
    let name = if cfg!(windows) { "python.exe" } else { "python3" };
    let mut found = Vec::new();
    for folder in env::split_paths(path).filter(|folder| folder.is_absolute() && folder.join(name).is_file()) {
        // On Windows `python.exe` lies in the root of an installation and in `Scripts` of an environment.
        let inside = folder.file_name().is_some_and(|last| last == "bin" || last == "Scripts");
        let root = if inside { folder.parent().unwrap_or(&folder).to_path_buf() } else { folder };
        if !found.contains(&root) {
            found.push(root);
        }
    }
    found
}

/// The folders of Python packages of an environment.
fn site_packages(root: &Path) -> Vec<PathBuf> {
    if cfg!(windows) {
        return vec![root.join("Lib").join("site-packages")];
    }
    let Ok(entries) = fs::read_dir(root.join("lib")) else { return Vec::new() };
    let mut found: Vec<PathBuf> = entries
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy().starts_with("python3"))
        .map(|entry| entry.path().join("site-packages"))
        .collect();
    found.sort();
    found
}

/// Looks for cuBLAS: in the folders of [`VARIABLE`], by the system's loader, and in the usual folders. The named folders come first,
/// in any version that can be used; of the rest every place is tried for the wanted version before one for the other.
pub(super) fn search(variable: impl Fn(&str) -> Option<OsString>) -> Found {
    let places = Places::of(variable);
    let in_folder = |folder: &PathBuf, version: u32| {
        let Names { library, needed } = Names::of(version);
        // Absolute, so that the loader takes this file and no other of its name.
        let folder = std::path::absolute(folder).ok()?;
        let (library, needed) = (folder.join(library), folder.join(needed));
        library.is_file().then(|| Candidate::Files { library, needed: needed.is_file().then_some(needed) })
    };
    let mut candidates = Vec::new();
    for folder in &places.named {
        candidates.extend(VERSIONS.iter().filter_map(|version| in_folder(folder, *version)));
    }
    for version in VERSIONS {
        candidates.push(Candidate::System(Names::of(version)));
        candidates.extend(places.usual.iter().filter_map(|folder| in_folder(folder, version)));
    }
    let folders: Vec<PathBuf> = places.named.into_iter().chain(places.usual).collect();
    let unfit = folders.iter().flat_map(|folder| unfit(folder)).collect();
    Found { candidates, folders, unfit }
}

/// The libraries of other versions in a folder.
fn unfit(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let mut found: Vec<PathBuf> = entries
        .flatten()
        .filter(|entry| {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            let version = match name.strip_prefix("libcublas.so.") {
                Some(version) => version.split('.').next(),
                None => name.strip_prefix("cublas64_").and_then(|rest| rest.strip_suffix(".dll")),
            };
            let version = version.and_then(|version| version.parse::<u32>().ok());
            version.is_some_and(|version| !VERSIONS.contains(&version))
        })
        .map(|entry| entry.path())
        .collect();
    found.sort();
    found
}

impl Found {
    /// Says what was looked for, where, what was wrong with what was found, and what to do.
    pub(super) fn refusal(&self, failed: &[String]) -> String {
        let mut text = format!(
            "no cuBLAS, NVIDIA's matrix products: {} was found neither by the system's loader nor in ",
            Names::of(VERSIONS[0]).library
        );
        let folders: Vec<String> = self.folders.iter().map(|folder| folder.display().to_string()).collect();
        text += &if folders.is_empty() { "any folder that is named".to_owned() } else { folders.join(", ") };
        for path in &self.unfit {
            text += &format!("; {} is of a version that cannot be used, {} is needed", path.display(), VERSIONS[0]);
        }
        for failed in failed {
            text += &format!("; {failed}");
        }
        text + &format!(
            ". Install the CUDA 13 toolkit, or run `pip install nvidia-cublas` and set {VARIABLE} to the folder that has the file \
             (site-packages/nvidia/cu13/lib)."
        )
    }
}

#[cfg(test)]
#[cfg(not(windows))]
mod tests {
    use std::collections::HashMap;

    use super::*;

    /// A folder that is gone with the value.
    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let path = env::temp_dir().join(format!("prefixkv-search-{}-{name}", std::process::id()));
            fs::create_dir_all(&path).expect("a folder can be made");
            Folder(path)
        }

        fn file(&self, path: &str) -> PathBuf {
            let path = self.0.join(path);
            fs::create_dir_all(path.parent().expect("a parent")).expect("a folder can be made");
            fs::write(&path, []).expect("a file can be written");
            path
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn search_with(variables: &[(&str, OsString)]) -> Found {
        let variables: HashMap<_, _> = variables.iter().cloned().collect();
        search(|name| variables.get(name).cloned())
    }

    /// Without what the machine of the test has of its own.
    fn in_folder(found: &Found, root: &Path) -> Vec<Candidate> {
        let inside = |candidate: &&Candidate| match candidate {
            Candidate::System(_) => true,
            Candidate::Files { library, .. } => library.starts_with(root),
        };
        found.candidates.iter().filter(inside).cloned().collect()
    }

    #[test]
    fn named_folders_come_before_the_system_and_the_system_before_toolkits() {
        let root = Folder::new("order");
        let named = root.file("b/libcublas.so.12");
        let needed = root.file("b/libcublasLt.so.12");
        let home = root.file("home/lib64/libcublas.so.13");
        let old = root.file("path/lib/libcublas.so.12");
        let wheel = root.file("env/lib/python3.12/site-packages/nvidia/cu13/lib/libcublas.so.13");
        let conda = root.file("conda/lib/libcublas.so.13");
        let folders = env::join_paths([root.0.join("a"), root.0.join("b")]).expect("no separator in the names");
        let found = search_with(&[
            (VARIABLE, folders),
            ("CUDA_HOME", root.0.join("home").into()),
            ("CUDA_PATH", root.0.join("path").into()),
            ("VIRTUAL_ENV", root.0.join("env").into()),
            ("CONDA_PREFIX", root.0.join("conda").into()),
        ]);
        let file = |library: &PathBuf| Candidate::Files { library: library.clone(), needed: None };
        let want = vec![
            Candidate::Files { library: named, needed: Some(needed) },
            Candidate::System(Names::of(13)),
            file(&home),
            file(&wheel),
            file(&conda),
            Candidate::System(Names::of(12)),
            file(&old),
        ];
        assert_eq!(in_folder(&found, &root.0), want);
    }

    #[test]
    fn the_python_of_the_path_names_an_environment_once() {
        let root = Folder::new("path");
        root.file("env/bin/python3");
        root.file("other/bin/python");
        let wheel = root.file("env/lib/python3.12/site-packages/nvidia/cu13/lib/libcublas.so.13");
        root.file("other/lib/python3.12/site-packages/nvidia/cu13/lib/libcublas.so.13");
        let path = env::join_paths(["relative/bin".into(), root.0.join("other/bin"), root.0.join("env/bin")]);
        let path = path.expect("no separator in the names");
        for more in [vec![], vec![("VIRTUAL_ENV", OsString::from(root.0.join("env")))]] {
            let found = search_with(&[vec![("PATH", path.clone())], more].concat());
            let files: Vec<Candidate> =
                in_folder(&found, &root.0).into_iter().filter(|one| matches!(one, Candidate::Files { .. })).collect();
            assert_eq!(files, [Candidate::Files { library: wheel.clone(), needed: None }]);
        }
    }

    #[test]
    fn a_refusal_names_the_file_the_folders_what_is_wrong_there_and_the_cure() {
        let root = Folder::new("refusal");
        let old = root.file("lib64/libcublas.so.11");
        root.file("lib64/libcublas.so.11.4.1.1043");
        root.file("lib64/libcublas.so");
        let found = search_with(&[("CUDA_HOME", root.0.clone().into())]);
        assert_eq!(in_folder(&found, &root.0), [Candidate::System(Names::of(13)), Candidate::System(Names::of(12))]);
        let text = found.refusal(&["x: cannot open".into()]);
        for part in [
            "libcublas.so.13",
            &root.0.join("lib64").display().to_string(),
            "/usr/local/cuda/lib64",
            &format!("{} is of a version that cannot be used, 13 is needed", old.display()),
            "; x: cannot open",
            "pip install nvidia-cublas",
            VARIABLE,
        ] {
            assert!(text.contains(part), "{part} in {text}");
        }
    }

    #[test]
    fn a_relative_folder_gives_an_absolute_file_and_an_empty_variable_nothing() {
        let here = search_with(&[(VARIABLE, "src".into()), ("CUDA_HOME", "".into())]);
        assert_eq!(here.folders, [PathBuf::from("src"), "/usr/local/cuda/lib64".into()]);
        let root = Folder::new("relative");
        root.file("libcublas.so.13");
        let relative = env::current_dir().expect("a folder").components().map(|_| "..").collect::<PathBuf>();
        let relative = relative.join(root.0.strip_prefix("/").expect("an absolute folder"));
        let found = search_with(&[(VARIABLE, relative.into())]);
        assert!(
            matches!(&found.candidates[0], Candidate::Files { library, .. } if library.is_absolute()),
            "{:?}",
            found.candidates
        );
    }
}
