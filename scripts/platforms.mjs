// The platforms, in one place: the packages with native files, and what the main package depends on, follow from this table.
// ts/native/binding.cjs requires the same names, literally.

/**
 * `name` as scripts/build.mjs has it in the file's name; `built` says that a package of it is made and tested. Only those become
 * dependencies: a name that nobody has published is a name that anybody can publish.
 */
export const platforms = [
  { name: "linux-x64-gnu", os: "linux", cpu: "x64", libc: "glibc", built: true },
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

/** The package.json of the main package as it is published: what only development needs is left out. */
export function mainManifest({ scripts, devDependencies, workspaces, allowScripts, ...manifest }) {
  const native = platforms.filter(({ built }) => built).map((platform) => [packageName(platform), manifest.version]);
  return { ...manifest, optionalDependencies: Object.fromEntries(native) };
}
