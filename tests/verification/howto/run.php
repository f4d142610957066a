<?php
// The program around the snippet of the page: a webhook on standard input, a verdict on standard output.
require __DIR__ . '/snippet.php';

$hook = json_decode(file_get_contents('php://stdin'), true);
try {
    verify($hook['body'], $hook['headers'], $hook['secret']);
    echo "accepted\n";
} catch (RuntimeException) {
    echo "refused\n";
}
