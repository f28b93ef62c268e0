"use strict";
for (const chart of document.querySelectorAll(".chart")) {
  const series = JSON.parse(chart.querySelector("script").textContent);
  const plot = chart.querySelector(".plot");
  const svg = plot.querySelector("svg");
  const make = (name) => svg.appendChild(document.createElementNS("http://www.w3.org/2000/svg", name));
  const cursor = make("line");
  cursor.setAttribute("class", "cursor");
  cursor.setAttribute("y1", 22);
  cursor.setAttribute("y2", 180);
  const dots = series.map((one) => {
    const dot = make("circle");
    dot.setAttribute("class", "dot c" + one.colour);
    dot.setAttribute("r", 4);
    return dot;
  });
  const tip = plot.appendChild(document.createElement("div"));
  tip.className = "tip";
  tip.setAttribute("role", "status");
  const places = [...new Set(series.flatMap((one) => one.points.map((point) => point[0])))].sort((a, b) => a - b);
  let place = places.length - 1;

  const nearest = (list, x) => list.reduce((a, b) => (Math.abs(b - x) < Math.abs(a - x) ? b : a));
  const say = (text, strong) => {
    const line = tip.appendChild(document.createElement("div"));
    line.append(text);
    if (strong) line.appendChild(document.createElement("b")).textContent = strong;
  };
  const hide = () => {
    tip.hidden = true;
    for (const mark of [cursor, ...dots]) mark.style.display = "none";
  };
  const show = (x) => {
    hide();
    tip.textContent = "";
    cursor.setAttribute("x1", x);
    cursor.setAttribute("x2", x);
    cursor.style.display = "";
    series.forEach((one, i) => {
      const at = nearest(one.points.map((point) => point[0]), x);
      if (Math.abs(at - x) > 3) return;
      const [px, py, step, value] = one.points.find((point) => point[0] === at);
      if (!tip.childElementCount) say(step);
      say(one.name + " ", value);
      if (py === null) return;
      dots[i].setAttribute("cx", px);
      dots[i].setAttribute("cy", py);
      dots[i].style.display = "";
    });
    tip.hidden = false;
    const share = x / svg.viewBox.baseVal.width;
    tip.style.left = share < 0.5 ? 100 * share + 3 + "%" : "auto";
    tip.style.right = share < 0.5 ? "auto" : 100 * (1 - share) + 3 + "%";
  };

  svg.querySelector("title").remove();
  svg.addEventListener("pointermove", (event) => {
    const box = svg.getBoundingClientRect();
    const x = nearest(places, ((event.clientX - box.left) / box.width) * svg.viewBox.baseVal.width);
    place = places.indexOf(x);
    show(x);
  });
  svg.addEventListener("pointerleave", hide);
  svg.addEventListener("focus", () => svg.matches(":focus-visible") && show(places[place]));
  svg.addEventListener("blur", hide);
  svg.addEventListener("keydown", (event) => {
    const move = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!move) return;
    event.preventDefault();
    place = Math.min(places.length - 1, Math.max(0, place + move));
    show(places[place]);
  });
  hide();
}
