import { resolve } from 'node:path';

/** A module's name or path, a hash, and the name of one of its exports. */
const form = /^([^#\s]+)#([\p{ID_Start}$_][\p{ID_Continue}$]*)$/u;

/** Whether a text is of the form `package#export` or `./file.js#export`. */
export function isPluginName(text: string): boolean {
  return form.test(text);
}

/** The module and the export of a plug-in's name. */
export function splitPluginName(name: string): { module: string; exported: string } {
  const [, module, exported] = form.exec(name) as unknown as [string, string, string];
  return { module, exported };
}

/** A plug-in's name with the path of a file made absolute; names of packages stay. */
export function absolutePlugin(name: string, folder: string): string {
  if (!/^\.{1,2}\//.test(name) || !isPluginName(name)) return name;
  const { module, exported } = splitPluginName(name);
  return `${resolve(folder, module)}#${exported}`;
}
