#!/bin/sh
# Prints the model server's flags for the models that MODEL_NAME names, separated by commas. The images start with it.
# For several models it writes their list into a temporary file.
case $MODEL_NAME in
    *,*)
        list=$(mktemp)
        {
            echo "model_config_list {"
            for name in $(echo "$MODEL_NAME" | tr ',' ' '); do
                echo "  config { name: \"$name\" base_path: \"/models/$name\" model_platform: \"tensorflow\" }"
            done
            echo "}"
        } > "$list"
        echo "--model_config_file=$list"
        ;;
    *)
        echo "--model_name=$MODEL_NAME --model_base_path=/models/$MODEL_NAME"
        ;;
esac
