//! Container images without a container engine: one layer of files, written as an OCI archive.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use oci_spec::image::{
    ANNOTATION_REF_NAME, Arch, ConfigBuilder, Descriptor, DescriptorBuilder, ImageConfigurationBuilder,
    ImageIndexBuilder, ImageManifestBuilder, MediaType, Os, RootFsBuilder, Sha256Digest,
};
use sha2::{Digest as _, Sha256};

use crate::error::{Doing as _, Error, Result};

/// By this annotation containerd learns an image's whole name.
const CONTAINERD_NAME: &str = "io.containerd.image.name";

/// An image to write. Equal inputs give equal bytes, so an image that is imported twice is one.
#[derive(Clone, Debug)]
pub struct Image {
    name: String,
    files: Vec<(PathBuf, PathBuf)>,
    links: Vec<(PathBuf, PathBuf)>,
    entrypoint: Vec<String>,
    env: Vec<String>,
    user: String,
}

impl Image {
    /// An empty image of this name, which has to be whole (`rig.local/app:1`). It runs as user 65532, who is nobody.
    #[must_use]
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            files: Vec::new(),
            links: Vec::new(),
            entrypoint: Vec::new(),
            env: vec![format!("PATH={}", crate::tools::PATH)],
            user: "65532:65532".into(),
        }
    }

    /// Adds a file or a folder of this machine under an absolute path in the image.
    #[must_use]
    pub fn add(mut self, file: impl Into<PathBuf>, path: impl Into<PathBuf>) -> Self {
        self.files.push((file.into(), path.into()));
        self
    }

    /// Adds a symbolic link.
    #[must_use]
    pub fn link(mut self, target: impl Into<PathBuf>, path: impl Into<PathBuf>) -> Self {
        self.links.push((target.into(), path.into()));
        self
    }

    /// Sets the words that a container starts with.
    #[must_use]
    pub fn entrypoint<W: Into<String>>(mut self, words: impl IntoIterator<Item = W>) -> Self {
        self.entrypoint = words.into_iter().map(Into::into).collect();
        self
    }

    /// Sets a variable, as `KEY=value`.
    #[must_use]
    pub fn env(mut self, variable: impl Into<String>) -> Self {
        self.env.push(variable.into());
        self
    }

    /// Sets the user that a container runs as, as `uid:gid`.
    #[must_use]
    pub fn user(mut self, user: impl Into<String>) -> Self {
        self.user = user.into();
        self
    }

    /// The image's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn file_name(&self) -> String {
        format!("{}.tar", self.name.replace(['/', ':', '@'], "_"))
    }

    /// Writes the image as a tar archive in OCI's image layout.
    ///
    /// # Errors
    /// A file cannot be read, a path is not absolute, or the archive cannot be written.
    pub fn write(&self, to: &Path) -> Result<()> {
        let tag = self.tag()?;
        let layer = self.layer()?;
        let config = ImageConfigurationBuilder::default()
            .architecture(architecture())
            .os(Os::Linux)
            .config(self.config()?)
            .rootfs(
                RootFsBuilder::default()
                    .typ("layers")
                    .diff_ids(vec![format!("sha256:{}", digest(&layer))])
                    .build()
                    .map_err(built)?,
            )
            .build()
            .and_then(|config| config.to_string())
            .map_err(built)?;
        let manifest = ImageManifestBuilder::default()
            .schema_version(2u32)
            .media_type(MediaType::ImageManifest)
            .config(descriptor(MediaType::ImageConfig, config.as_bytes())?)
            .layers(vec![descriptor(MediaType::ImageLayer, &layer)?])
            .build()
            .and_then(|manifest| manifest.to_string())
            .map_err(built)?;
        let mut entry = descriptor(MediaType::ImageManifest, manifest.as_bytes())?;
        entry.set_annotations(Some(
            [(CONTAINERD_NAME, self.name.as_str()), (ANNOTATION_REF_NAME, tag)]
                .map(|(key, value)| (key.to_owned(), value.to_owned()))
                .into(),
        ));
        let index = ImageIndexBuilder::default()
            .schema_version(2u32)
            .manifests(vec![entry])
            .build()
            .map_err(built)?;
        // Annotations are a hash map, in another order each time; a value's fields are sorted.
        let index = serde_json::to_value(&index).map(|index| index.to_string());
        let index = index.map_err(|error| built(error.into()))?;
        let mut archive = tar::Builder::new(Vec::new());
        for (path, bytes) in [
            ("oci-layout".to_owned(), &br#"{"imageLayoutVersion":"1.0.0"}"#[..]),
            ("index.json".to_owned(), index.as_bytes()),
            (blob(config.as_bytes()), config.as_bytes()),
            (blob(manifest.as_bytes()), manifest.as_bytes()),
            (blob(&layer), &layer),
        ] {
            append(&mut archive, Path::new(&path), 0o644, bytes)?;
        }
        let bytes = archive.into_inner().doing("finish the image")?;
        // Renamed into place: nobody sees half an image.
        let unfinished = to.with_extension("tar.unfinished");
        fs::write(&unfinished, bytes)
            .and_then(|()| fs::rename(&unfinished, to))
            .doing(format!("write {}", to.display()))
    }

    /// The tag of the name, where the name is one that every registry would take.
    fn tag(&self) -> Result<&str> {
        let parts = self.name.rsplit_once(':').and_then(|(repository, tag)| {
            let (registry, path) = repository.split_once('/')?;
            let lower = |text: &str, more: &str| {
                !text.is_empty()
                    && text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || more.contains(c))
            };
            let of_tag = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
            let whole = lower(registry, ".-:")
                && path.split('/').all(|part| lower(part, "._-"))
                && !tag.is_empty()
                && tag.chars().all(of_tag);
            whole.then_some(tag)
        });
        parts.ok_or_else(|| {
            Error::Needs(format!(
                "the image's name '{}' must be whole, with registry and tag, in lower case, for example `rig.local/app:1`",
                self.name
            ))
        })
    }

    fn config(&self) -> Result<oci_spec::image::Config> {
        ConfigBuilder::default()
            .entrypoint(self.entrypoint.clone())
            .env(self.env.clone())
            .user(self.user.clone())
            .working_dir("/")
            .build()
            .map_err(built)
    }

    fn layer(&self) -> Result<Vec<u8>> {
        let mut layer = tar::Builder::new(Vec::new());
        // Programs expect a place for their temporary files, whoever they run as.
        append_folder(&mut layer, Path::new("tmp"), 0o1777)?;
        for (file, path) in &self.files {
            append_file(&mut layer, file, inner(path)?)?;
        }
        for (target, path) in &self.links {
            let mut header = header(tar::EntryType::Symlink, 0o777, 0);
            layer
                .append_link(&mut header, inner(path)?, target)
                .doing(format!("add the link {}", path.display()))?;
        }
        layer.into_inner().doing("finish the image's layer")
    }
}

/// A path as an archive has it: without the leading slash.
fn inner(path: &Path) -> Result<&Path> {
    path.strip_prefix("/").map_err(|_| {
        Error::Needs(format!("`{}` must be an absolute path: it is the place in the image", path.display()))
    })
}

fn append_file(layer: &mut tar::Builder<Vec<u8>>, file: &Path, path: &Path) -> Result<()> {
    let doing = || format!("read {}", file.display());
    let metadata = fs::metadata(file).doing(doing())?;
    if !metadata.is_dir() {
        let mode = std::os::unix::fs::PermissionsExt::mode(&metadata.permissions()) & 0o777;
        return append(layer, path, mode, &fs::read(file).doing(doing())?);
    }
    append_folder(layer, path, 0o755)?;
    let mut entries: Vec<_> =
        fs::read_dir(file).doing(doing())?.flatten().map(|entry| entry.file_name()).collect();
    // Sorted, because a folder's order is the file system's, and the digest must not be.
    entries.sort();
    entries.iter().try_for_each(|name| append_file(layer, &file.join(name), &path.join(name)))
}

fn append_folder(layer: &mut tar::Builder<Vec<u8>>, path: &Path, mode: u32) -> Result<()> {
    let mut header = header(tar::EntryType::Directory, mode, 0);
    layer.append_data(&mut header, path, std::io::empty()).doing(format!("add {}", path.display()))
}

fn append<W: Write>(archive: &mut tar::Builder<W>, path: &Path, mode: u32, bytes: &[u8]) -> Result<()> {
    let mut header = header(tar::EntryType::Regular, mode, bytes.len() as u64);
    archive.append_data(&mut header, path, bytes).doing(format!("add {}", path.display()))
}

/// A header without a time and an owner: equal inputs must give equal bytes.
fn header(kind: tar::EntryType, mode: u32, size: u64) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(size);
    header.set_mtime(0);
    header
}

fn digest(bytes: &[u8]) -> String {
    data_encoding::HEXLOWER.encode(&Sha256::digest(bytes))
}

fn blob(bytes: &[u8]) -> String {
    format!("blobs/sha256/{}", digest(bytes))
}

fn descriptor(kind: MediaType, bytes: &[u8]) -> Result<Descriptor> {
    let digest: Sha256Digest = digest(bytes).parse().map_err(built)?;
    DescriptorBuilder::default()
        .media_type(kind)
        .digest(digest)
        .size(bytes.len() as u64)
        .build()
        .map_err(built)
}

fn architecture() -> Arch {
    if cfg!(target_arch = "aarch64") { Arch::ARM64 } else { Arch::Amd64 }
}

// Takes the error by value to be a `map_err` argument.
#[allow(clippy::needless_pass_by_value)]
fn built(error: oci_spec::OciSpecError) -> Error {
    Error::Needs(format!("failed to describe the image: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_inputs_give_equal_bytes_and_a_changed_file_gives_others() {
        let folder = tempfile::tempdir().unwrap();
        let files = folder.path().join("files");
        fs::create_dir(&files).unwrap();
        let write = |name: &str| {
            let image =
                Image::new("rig.local/app:1").add(&files, "/app").link("/app/a", "/a").entrypoint(["/a"]);
            let file = folder.path().join(name);
            image.write(&file).unwrap();
            fs::read(file).unwrap()
        };
        fs::write(files.join("a"), "1").unwrap();
        fs::write(files.join("b"), "2").unwrap();
        let first = write("first.tar");
        fs::write(files.join("a"), "1").unwrap();
        assert!(first == write("second.tar"));
        fs::write(files.join("b"), "3").unwrap();
        assert!(first != write("third.tar"));
    }
}
