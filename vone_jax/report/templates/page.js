// Charts become interactive shortly before they come into view. If that fails, the static picture
// stays. With ast, Vega interprets its expressions and needs no eval.
const root = document.documentElement;
root.classList.add("live");
const views = new Map();
const {config, specs} = charts;

for (const plot of document.querySelectorAll(".plot")) {
  const seen = new IntersectionObserver(async (entries) => {
    if (!entries.some((entry) => entry.isIntersecting)) return;
    seen.disconnect();
    const live = document.createElement("div");
    const options = {actions: false, renderer: "svg", ast: true, mode: "vega-lite", config};
    const {view} = await vegaEmbed(live, specs[plot.id], options);
    views.set(plot, view);
    show(plot, view);
    plot.querySelector("svg").replaceWith(live);
    plot.dataset.live = "";
  }, {rootMargin: "400px"});
  seen.observe(plot);
}

// The legends choose the networks of all charts. One network always stays.
const boxes = [...document.querySelectorAll("input[data-network]")];
const networks = () => [...new Set(boxes.filter((b) => b.checked).map((b) => +b.dataset.network))];

function chooses(plot) {
  return boxes.length && (specs[plot.id].params ?? []).some((param) => param.name === "shown");
}

function show(plot, view) {
  if (chooses(plot)) view.signal("shown", networks()).runAsync();
}

for (const box of boxes) {
  box.addEventListener("change", () => {
    if (boxes.every((other) => other.dataset.network === box.dataset.network || !other.checked)) {
      box.checked = true;
    }
    for (const other of boxes) {
      if (other.dataset.network === box.dataset.network) other.checked = box.checked;
    }
    for (const [plot, view] of views) show(plot, view);
  });
}

// Paper shows all networks, as do the charts that are not interactive yet.
addEventListener("beforeprint", () => {
  const all = [...new Set(boxes.map((box) => +box.dataset.network))];
  for (const [plot, view] of views) if (chooses(plot)) view.signal("shown", all).run();
});
addEventListener("afterprint", () => {
  for (const [plot, view] of views) show(plot, view);
});

for (const radio of document.querySelectorAll("input[name=norm]")) {
  radio.addEventListener("change", () => {
    for (const figure of document.querySelectorAll("figure[data-norm]")) {
      figure.hidden = radio.value !== "" && figure.dataset.norm !== radio.value;
    }
  });
}

// Each figure as a file: the picture in the colours that are shown, and its data.
function save(name, type, text) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], {type}));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

function picture(plot) {
  const style = getComputedStyle(root);
  const svg = plot.querySelector("svg").cloneNode(true);
  const text = new XMLSerializer().serializeToString(svg);
  return text.replace(/var\((--[\w-]+)\)/g, (_, name) => style.getPropertyValue(name).trim());
}

function table(plot) {
  const rows = Object.values(specs[plot.id].datasets).flat();
  const names = [...new Set(rows.flatMap(Object.keys))];
  const cell = (value) => {
    const text = value == null ? "" : String(value);
    return /[",\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  };
  const lines = rows.map((row) => names.map((name) => cell(row[name])));
  return [names.map(cell), ...lines].map((line) => line.join(",") + "\n").join("");
}

for (const button of document.querySelectorAll("button[data-export]")) {
  const plot = button.closest("figure").querySelector(".plot");
  const svg = button.dataset.export === "svg";
  button.addEventListener("click", () => {
    const type = svg ? "image/svg+xml" : "text/csv";
    save(`${plot.id}.${button.dataset.export}`, type, svg ? picture(plot) : table(plot));
  });
}
