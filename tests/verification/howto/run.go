// The program around the snippet of the page: a webhook on standard input, a verdict on standard output.
package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
)

func main() {
	var hook struct {
		Headers map[string]string
		Body    string
		Secret  string
	}
	if err := json.NewDecoder(os.Stdin).Decode(&hook); err != nil {
		panic(err)
	}
	headers := http.Header{}
	for name, value := range hook.Headers {
		headers.Set(name, value)
	}
	if verify([]byte(hook.Body), headers, hook.Secret) == nil {
		fmt.Println("accepted")
	} else {
		fmt.Println("refused")
	}
}
