/**
 * Typographic marks and the plain ones that the transcripts before 2016 use for them. Only the speeches of the
 * test years have them, where they tell who typed the transcript, not how the speech was worded.
 */
const plain: Readonly<Record<string, string>> = {
  '\u2018': "'",
  '\u2019': "'",
  '\u201C': '"',
  '\u201D': '"',
  '\u2010': '-',
  '\u2011': '-',
  '\u2013': '-',
};

const marks = new RegExp(`[${Object.keys(plain).join('')}]`, 'gu');

/** A speech with plain quotation marks and hyphens. Dashes (U+2014), which all periods use, stay. */
export function normalize(text: string): string {
  return text.replace(marks, (mark) => plain[mark]!);
}
