const clock = document.getElementById("clock");
const stream = new EventSource(clock.dataset.stream);
stream.onmessage = (event) => { clock.textContent = event.data.split(" ")[0]; };
stream.onerror = () => { clock.textContent = "…"; };
