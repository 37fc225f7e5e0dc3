"use strict";
document.documentElement.dataset.script = "on";
for (const tree of document.querySelectorAll(".flame")) {
  const steps = (list) => [...list.children].filter((step) => step.matches("li:not(.off)"));
  const below = (step) => step.querySelector(":scope > ul");
  const above = (step) => step.parentElement.closest("li");
  const show = (step) => {
    for (const changed of tree.querySelectorAll(".full, .off")) changed.classList.remove("full", "off");
    for (; step; step = above(step)) {
      step.classList.add("full");
      for (const other of step.parentElement.children) if (other !== step) other.classList.add("off");
    }
  };
  const focus = (step) => {
    if (!step) return;
    for (const old of tree.querySelectorAll('[tabindex="0"]')) old.tabIndex = -1;
    step.firstElementChild.tabIndex = 0;
    step.firstElementChild.focus();
  };
  tree.addEventListener("click", (event) => {
    const step = event.target.closest("li");
    if (!step) return;
    show(step.classList.contains("full") ? above(step) : step);
    focus(step);
  });
  tree.addEventListener("keydown", (event) => {
    const step = event.target.closest("li");
    if (!step) return;
    const siblings = steps(step.parentElement);
    const place = siblings.indexOf(step);
    const first = below(step) && steps(below(step))[0];
    const moves = {
      ArrowDown: () => focus(first), ArrowUp: () => focus(above(step)),
      ArrowLeft: () => focus(siblings[place - 1]), ArrowRight: () => focus(siblings[place + 1]),
      Home: () => focus(steps(tree)[0]), Enter: () => show(step), " ": () => show(step), Escape: () => show(null),
    };
    if (!moves[event.key]) return;
    event.preventDefault();
    moves[event.key]();
  });
}
