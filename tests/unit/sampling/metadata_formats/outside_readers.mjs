// What exifr and ExifReader find in image files, and what Civitai's rules make of it, as one JSON object.
// The rules, from its public code, in our words: `parameters`, else the user comment, whose order of bytes is
// that with more zeros in the upper half; fields from the line that begins with "Steps: "; `Hashes` is JSON;
// a value in quotes is a list of fields itself; LoRAs are tags of the prompt, and join their hashes by name.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";

const require = createRequire(import.meta.url);
const exifr = require("exifr");
const ExifReader = require("exifreader");

function decodeComment(bytes) {
  const content = bytes.subarray(8);
  let even = 0, odd = 0;
  for (let i = 0; i + 1 < content.length; i += 2) {
    even += content[i] === 0;
    odd += content[i + 1] === 0;
  }
  return new TextDecoder(odd > even ? "utf-16le" : "utf-16be").decode(content);
}

function fieldsOf(line) {
  const fields = {};
  let name = "", value = "", quoted = false;
  const end = () => { if (name) fields[name] = value.trim(); name = ""; value = ""; };
  for (const one of line) {
    if (one === '"') {
      if (quoted) { fields[name] = fieldsOf(value); name = ""; value = ""; }
      quoted = !quoted;
    } else if (one === ":" && !quoted) { name = value.trim(); value = ""; }
    else if (one === "," && !quoted) end();
    else value += one;
  }
  end();
  return fields;
}

function civitai(text) {
  const lines = text.split("\n").filter((line) => line.trim());
  const number = lines.findIndex((line) => line.startsWith("Steps: "));
  if (number < 0) return null;
  let [line] = lines.splice(number, 1);
  const hashes = line.match(/, Hashes: (\{.*?\})/);
  const found = { hashes: hashes ? JSON.parse(hashes[1]) : {} };
  Object.assign(found, fieldsOf(hashes ? line.replace(hashes[0], "") : line));
  const [prompt, ...negative] = lines.join("\n").split("Negative prompt:").map((part) => part.trim());
  const tags = [...prompt.matchAll(/<(lora|hypernet):([a-zA-Z0-9_.-]+):([0-9.]+)>/g)];
  const loras = tags.map(([, type, name, weight]) => ({
    type, name, weight: parseFloat(weight), hash: found["Lora hashes"]?.[name],
  }));
  return { ...found, prompt, negativePrompt: negative.join(" "), loras };
}

const found = {};
for (const path of process.argv.slice(2)) {
  const data = readFileSync(path);
  const tags = ExifReader.load(data, { includeUnknown: true });
  const comment = tags.UserComment && Uint8Array.from(tags.UserComment.value);
  const text = tags.parameters?.value ?? (comment ? decodeComment(comment) : "");
  const one = { text, civitai: civitai(text), description: tags.ImageDescription?.description ?? null };
  if (!path.endsWith(".webp")) { // which exifr does not read
    const older = await exifr.parse(data, { tiff: true, exif: true, ihdr: true, userComment: true });
    const bytes = older.userComment ?? older.UserComment;
    one.exifr = older.parameters ?? (bytes ? decodeComment(bytes) : null);
  }
  found[path] = one;
}
console.log(JSON.stringify(found));
