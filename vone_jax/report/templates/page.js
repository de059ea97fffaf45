// Draws each chart in place of its specification. With ast, Vega interprets its expressions and
// needs no eval. The menu of a chart saves it.
const options = {
  renderer: "svg",
  ast: true,
  mode: "vega-lite",
  actions: {export: true, source: false, compiled: false, editor: false},
};
const drawn = [...document.querySelectorAll("script.chart")].map((script) => {
  const place = document.createElement("div");
  place.className = "chart";
  script.after(place);
  return vegaEmbed(place, JSON.parse(script.textContent), options);
});
Promise.all(drawn).then(() => document.documentElement.classList.add("drawn"));
