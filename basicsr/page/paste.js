// Files pasted into the page are added as if they were chosen in the upload field.
document.addEventListener("paste", (event) => {
  const input = document.querySelector("#photographs input[type=file]");
  if (!input || !event.clipboardData.files.length) return;
  const files = new DataTransfer();
  for (const file of event.clipboardData.files) files.items.add(file);
  input.files = files.files;
  input.dispatchEvent(new Event("change", { bubbles: true }));
  event.preventDefault();
});
