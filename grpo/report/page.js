"use strict";
// The plotting library travels compressed. It may run because the page's content policy names its checksum.
const textOf = (id) => document.getElementById(id).textContent;

async function loadLibrary() {
  const packed = Uint8Array.from(atob(textOf("library")), (char) => char.charCodeAt(0));
  const unpacked = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
  const script = document.createElement("script");
  script.textContent = await new Response(unpacked).text();
  document.head.append(script);
}

function draw(isDark) {
  const { dark } = JSON.parse(textOf("plots"));
  const recoloured = textOf("plots").replace(/#[0-9a-f]{6}/g, (colour) => (isDark && dark[colour]) || colour);
  const { document: plots, roots } = JSON.parse(recoloured);
  const places = [...document.querySelectorAll(".plot")];
  for (const place of places) place.replaceChildren();
  const elements = Object.fromEntries(roots.map((root, i) => [root, places[i]]));
  Bokeh.embed.embed_items({ plots }, [{ docid: "plots", roots: elements, root_ids: roots }]);
}

const darkness = matchMedia("(prefers-color-scheme: dark)");
loadLibrary().then(() => {
  draw(darkness.matches);
  darkness.addEventListener("change", () => draw(darkness.matches));
});
