// The charts and their script are compressed in the page. Where a browser cannot read them, the
// static pictures stay.
async function unpacked(id) {
  const text = atob(document.getElementById(id).textContent);
  const bytes = Uint8Array.from(text, (character) => character.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Response(stream).text();
}

Promise.all(["charts", "script"].map(unpacked)).then(([charts, text]) => {
  window.charts = JSON.parse(charts);
  const script = document.createElement("script");
  script.textContent = text;
  document.body.append(script);
});
