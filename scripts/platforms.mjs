// The platforms, in one place: the packages with native files, and what the main package depends on, follow from this table.
// ts/native/binding.cjs requires the same names, literally.

/**
 * `name` as scripts/build.mjs has it in the file's name; `built` says that a package of it is made and tested. Only those become
 * dependencies: a name that nobody has published is a name that anybody can publish. `cuda` says that there is a package with the build
 * for CUDA too, which users install by themselves; ts/native/cuda.ts has the same names.
 */
export const platforms = [
  { name: "linux-x64-gnu", os: "linux", cpu: "x64", libc: "glibc", built: true, cuda: true },
  { name: "linux-arm64-gnu", os: "linux", cpu: "arm64", libc: "glibc", built: false },
  { name: "darwin-arm64", os: "darwin", cpu: "arm64", built: false },
];

export const packageName = (platform) => `@prefixkv/${platform.name}`;
export const nativeFile = (platform) => `prefixkv.${platform.name}.node`;

/** The package.json of a platform's package. */
export function platformManifest(platform, { version, license, engines }) {
  const { name, os, cpu, libc } = platform;
  return {
    name: packageName(platform),
    version,
    description: `The native code of prefixkv for ${name}`,
    license,
    os: [os],
    cpu: [cpu],
    ...(libc && { libc: [libc] }),
    engines,
    type: "commonjs",
    main: nativeFile(platform),
    files: [nativeFile(platform)],
  };
}

export const cudaPackageName = (platform) => `${packageName(platform)}-cuda`;
export const cudaFile = (platform) => `prefixkv.${platform.name}.cuda.node`;

/** The package.json of a platform's package with the build for CUDA: for one version of the main package, which does not depend on it. */
export function cudaManifest(platform, manifest) {
  const main = cudaFile(platform);
  return {
    ...platformManifest(platform, manifest),
    name: cudaPackageName(platform),
    description: `The native code of prefixkv for NVIDIA GPUs on ${platform.name}`,
    peerDependencies: { prefixkv: manifest.version },
    main,
    files: [main],
  };
}

/** The package.json of the main package as it is published: what only development needs is left out. */
export function mainManifest({ scripts, devDependencies, workspaces, allowScripts, ...manifest }) {
  const native = platforms.filter(({ built }) => built).map((platform) => [packageName(platform), manifest.version]);
  return { ...manifest, optionalDependencies: Object.fromEntries(native) };
}
